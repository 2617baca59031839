"""Whatever is sent, the answer is an envelope, never a 500, and nothing is recorded."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.reference import PLANT_CONFIG_BODY, ROUTES, TIME_CONFIG, Route
from tests.http.world import ESM_SECRET, Org, World, is_envelope

JSON = {"Content-Type": "application/json"}
POSTS = [route for route in ROUTES if route.method == "POST"]
BODIES = [route for route in POSTS if route.body is not None]
PLANT_GETS = [route for route in ROUTES if route.method == "GET" and route.of_plant]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def code_of(route: Route) -> str:
    return "BAD_REQUEST" if route.of_plant else "VALIDATION_ERROR"


@pytest.fixture(scope="module")
def owner(package_world: World) -> tuple[Org, UUID]:
    org = package_world.organisation()
    return org, org.plant()


@pytest.fixture(autouse=True)
def nothing_is_recorded(owner: tuple[Org, UUID]) -> Iterator[None]:
    before = owner[0].world.count()
    yield
    assert owner[0].world.count() == before


@pytest.mark.parametrize("route", POSTS, ids=named)
@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", b'"x"', b"1", b'{"a": NaN}', b"\xff\xfe", b'{"a": "\xc3\x28"}', b'{"a": 1, "a": 1}',
        b"[" * 200_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"a": "\\ud800"}', b'{"\\ud800": 1}', b'{"a\\u0000": 1}',
        b"{} {}", b'\xef\xbb\xbf{"unknown": 1}', b'{"unknown": 1}', b'{"a": ' + b"9" * 5000 + b"}", b"{'a': 1}",
        b"{" + b",".join(b'"a%d": 1' % number for number in range(101)) + b"}",
    ],
    ids=lambda body: repr(body[:24]) + str(len(body)),
)  # fmt: skip
def test_bodies(owner: tuple[Org, UUID], route: Route, body: bytes) -> None:
    org, plant_id = owner
    answer = org.post(route.at(plant_id), content=body, headers=JSON)
    assert is_envelope(answer, 400, code_of(route))["errors"]


@pytest.mark.parametrize("route", BODIES, ids=named)
def test_an_empty_body_is_no_object(owner: tuple[Org, UUID], route: Route) -> None:
    org, plant_id = owner
    is_envelope(org.post(route.at(plant_id), headers=JSON), 400, code_of(route))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
@pytest.mark.parametrize("route", BODIES, ids=named)
def test_content_types(owner: tuple[Org, UUID], route: Route, content_type: str) -> None:
    org, plant_id = owner
    body = json.dumps(route.body).encode()
    answer = org.post(route.at(plant_id), content=body, headers={"Content-Type": content_type})
    assert is_envelope(answer, 400, code_of(route))["errors"] == ["content-type: must be application/json"]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("route", POSTS, ids=named)
def test_oversize(owner: tuple[Org, UUID], route: Route, declared: bool) -> None:
    org, plant_id = owner
    body = b" " * (5 * 1024 * 1024 + 1)
    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    answer = org.post(route.at(plant_id), content=body if declared else chunks, headers=JSON)
    is_envelope(answer, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"esmApiUrl": ""}, "esmApiUrl"), ({"esmApiUrl": 5}, "esmApiUrl"), ({"esmApiUrl": "x" * 3000}, "esmApiUrl"),
        ({"esmClientId": ["x"]}, "esmClientId"), ({"esmClientId": "a\u0000b"}, "esmClientId"),
        ({"esmClientSecret": ""}, "esmClientSecret"), ({"esmClientSecret": {"a": ESM_SECRET}}, "esmClientSecret"),
        ({"queuePrefix": "A"}, "queuePrefix"), ({"queuePrefix": "-ab"}, "queuePrefix"),
        ({"queuePrefix": "a" * 51}, "queuePrefix"), ({"queuePrefix": "ab\n"}, "queuePrefix"),
        ({"status": "ENABLED"}, "status"), ({"esm_api_url": "https://a.example"}, "esm_api_url"),
        ({"hasEsmCredentials": True}, "hasEsmCredentials"),
    ],
    ids=str,
)  # fmt: skip
def test_trading_config(owner: tuple[Org, UUID], change: dict[str, Any], place: str) -> None:
    answer = owner[0].post("/trading/config", json=change)
    details = is_envelope(answer, 400, "VALIDATION_ERROR")
    assert [error.split(":")[0] for error in details["errors"]] == [place]
    assert ESM_SECRET not in answer.text


def test_refused_url(owner: tuple[Org, UUID]) -> None:
    org = owner[0]
    answer = org.post("/trading/config", json={"esmApiUrl": "ftp://esm.example.com"})
    assert is_envelope(answer, 400, "VALIDATION_ERROR") == {"reason": "ESM_URL_NOT_ALLOWED"}


def block(**changed: Any) -> dict[str, Any]:
    return {**TIME_CONFIG, **changed}


@pytest.mark.parametrize("dry", ["", "/validate"])
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "timeConfigs"), ({"timeConfigs": []}, "timeConfigs"), ({"timeConfigs": {}}, "timeConfigs"),
        ({"timeConfigs": [block()] * 97}, "timeConfigs"), ({"timeConfigs": [7]}, "timeConfigs.0"),
        ({"timeConfigs": [block(), block()]}, "timeConfigs.1.from"),
        ({"timeConfigs": [block(**{"from": "6:00"})]}, "timeConfigs.0.from"),
        ({"timeConfigs": [block(**{"from": "06:00"})]}, "timeConfigs.0.from"),
        ({"timeConfigs": [block(to="25:00")]}, "timeConfigs.0.to"),
        ({"timeConfigs": [block(to=6)]}, "timeConfigs.0.to"),
        ({"timeConfigs": [block(pBatMin="1")]}, "timeConfigs.0.pBatMin"),
        ({"timeConfigs": [block(pBatMin=True)]}, "timeConfigs.0.pBatMin"),
        ({"timeConfigs": [block(pBatMin=1)]}, "timeConfigs.0.pBatMin"),
        ({"timeConfigs": [block(pBatMax=1e9)]}, "timeConfigs.0.pBatMax"),
        ({"timeConfigs": [block(socMax=101)]}, "timeConfigs.0.socMax"),
        ({"timeConfigs": [block(socMin=None)]}, "timeConfigs.0.socMin"),
        ({"timeConfigs": [block(more=1)]}, "timeConfigs.0.more"),
        ({"timeConfigs": [block(p_bat_max=1)]}, "timeConfigs.0.p_bat_max"),
        ({**PLANT_CONFIG_BODY, "validateOnly": "true"}, "validateOnly"),
        ({**PLANT_CONFIG_BODY, "validateOnly": None}, "validateOnly"),
        ({"time_configs": [block()]}, "timeConfigs"), ({**PLANT_CONFIG_BODY, "version": 3}, "version"),
    ],
)  # fmt: skip
def test_plant_config(owner: tuple[Org, UUID], dry: str, body: dict[str, Any], place: str) -> None:
    org, plant_id = owner
    details = is_envelope(org.post(f"/trading/plants/{plant_id}/config{dry}", json=body), 400, "BAD_REQUEST")
    assert place in [error.split(":")[0] for error in details["errors"]]


BAD_PAGES = [
    "page=0", "page=-1", "page=x", "page=", "page=99999999999999999999", "limit=0", "limit=101", "limit=1.5",
    "page=1&page=2", "pages=1", "page=1&x=1", "%00=1", "page=%FF", "&".join(f"p{n}=1" for n in range(60)),
]  # fmt: skip
BAD_WINDOWS = [
    "bucket=0", "bucket=61", "bucket=x", "bucket=", "bucket=5&interval=5", "from=2026-01-01&start=2026-01-01",
    "to=2026-01-01T00:00:00Z&end=2026-01-02", "from=yesterday", "from=1700000000", "from=2026-13-01T00:00:00Z", "from=",
    "from=2026-01-02&to=2026-01-01", "from=2026-01-01&to=2026-01-01", "from=2020-01-01&to=2026-01-01",
    "to=0001-01-01T00:00:00Z", "from=0001-01-01T00:00:00%2B10:00&to=0001-01-02",
    "from=9999-12-31T23:00:00Z&to=9999-12-31T23:59:59-10:00",
    "from=9999-12-31T23:00:00Z&to=9999-12-31T23:59:59Z&bucket=7",
    "page=1", "limit=1", "from=2026-01-01T00:00:00Z&from=x",
]  # fmt: skip
QUERIES = {
    "/trading/config": ["x=1", "page=1"],
    "/trading/connection-details": ["x=1"],
    "/trading/plants": BAD_PAGES,
    "/trading/plants/{plant_id}/config": ["x=1"],
    "/trading/plants/{plant_id}/config-log": [*BAD_PAGES, "commandType=EMERGENCY"],
    "/trading/plants/{plant_id}/command-log": [
        *BAD_PAGES, "commandType=SCHEDULE", "commandType=", "command_type=EMERGENCY",
    ],
    "/trading/plants/{plant_id}/meters": BAD_WINDOWS,
    "/trading/plants/{plant_id}/telemetry": BAD_WINDOWS,
    "/trading/plants/{plant_id}/telemetry/latest": ["from=2026-01-01"],
}  # fmt: skip


@pytest.mark.parametrize(("path", "query"), [(path, query) for path, queries in QUERIES.items() for query in queries])
def test_queries(owner: tuple[Org, UUID], path: str, query: str) -> None:
    org, plant_id = owner
    code = "BAD_REQUEST" if "plants" in path else "VALIDATION_ERROR"
    assert is_envelope(org.get(f"{path.format(plant_id=plant_id)}?{query}"), 400, code)["errors"]


@pytest.mark.parametrize("route", POSTS, ids=named)
def test_commands_know_no_query(owner: tuple[Org, UUID], route: Route) -> None:
    org, plant_id = owner
    options = {} if route.body is None else {"json": route.body}
    is_envelope(org.post(f"{route.at(plant_id)}?dryRun=1", **options), 400, code_of(route))


@pytest.mark.parametrize("route", [route for route in ROUTES if route.of_plant], ids=named)
@pytest.mark.parametrize(
    "text", ["x", "497f6eca62764993bfeb53cbbbba6f08", "%7B497f6eca-6276-4993-bfeb-53cbbbba6f08%7D", "%00"]
)
def test_malformed_ids(owner: tuple[Org, UUID], route: Route, text: str) -> None:
    code = "INVALID_UUID" if route.path.endswith("latest") else "BAD_REQUEST"
    answer = owner[0].world.client.request(route.method, route.at(text), headers=owner[0].jwt(), json=route.body)
    is_envelope(answer, 400, code)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z",
        "start=2026-01-01&end=2026-01-02&interval=60",
        "from=2026-01-01T02:00:00+02:00&to=2026-01-01T03:00:00%2B02:00",
        "from=2026-01-01T00:00:00&bucket=60&to=2026-01-02",
    ],
)
@pytest.mark.parametrize("what", ["telemetry", "meters"])
def test_good_windows(owner: tuple[Org, UUID], what: str, query: str) -> None:
    org, plant_id = owner
    answer = org.get(f"/trading/plants/{plant_id}/{what}?{query}")
    assert (answer.status_code, answer.json()) == (200, [])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = ["esmApiUrl", "queuePrefix", "timeConfigs", "validateOnly", "from", "x"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=st.dictionaries(st.sampled_from(fields), anything, min_size=1, max_size=4), which=st.sampled_from(BODIES))
def test_no_body_makes_a_500(owner: tuple[Org, UUID], body: dict[str, Any], which: Route) -> None:
    org, plant_id = owner
    body["never"] = "known"
    is_envelope(org.post(which.at(plant_id), content=json.dumps(body).encode(), headers=JSON), 400, code_of(which))
