"""What surrounds every endpoint: ids, envelopes of 404 and 405, health, metrics, documentation."""

from uuid import UUID

import pytest
from eventsourcing.persistence import MapperDeserialisationError

from domain.catalogue import UNKNOWN
from domain.errors import Unavailable
from interfaces.http.errors import as_error
from tests.access_log import WANTED, AccessLog
from tests.http.world import Org, World, is_envelope


def test_request_id_is_made_and_echoed(org: Org) -> None:
    made = org.get("/trading/config").headers["x-request-id"]
    assert str(UUID(made)) == made
    assert org.get("/trading/config", headers={"X-Request-Id": "mine 1"}).headers["x-request-id"] == "mine 1"


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"tab\tbed", b"caf\xe9"])
def test_request_id_that_fits_no_log_is_replaced(world: World, given: bytes) -> None:
    made = world.client.get("/trading/config", headers=[(b"X-Request-Id", given)]).headers["x-request-id"]
    assert str(UUID(made)) == made


def test_request_id_is_stored_with_the_event(org: Org, world: World) -> None:
    answer = org.post("/trading/config", json={"esmClientId": "other"}, headers={"X-Request-Id": "req-7"})
    with world.services.trading.events.recorder.pool.connection() as connection:  # type: ignore[attr-defined]
        row = connection.execute(
            "SELECT metadata FROM events WHERE position = %s", [int(answer.headers["x-position"])]
        ).fetchone()
    assert row[0]["request_id"] == "req-7"
    assert row[0]["source"] == "http"
    assert row[0]["actor"].startswith("user:")


@pytest.mark.parametrize("path", ["/nowhere", "/trading/config/", "/trading/plants//config", "/docs/index.html"])
def test_unknown_path_is_an_envelope(world: World, path: str) -> None:
    is_envelope(world.client.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/trading/config", "GET, HEAD, POST"),
        ("GET", "/trading/plants/sync", "POST"),
        ("POST", "/trading/connection-details", "GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
        ("OPTIONS", "/trading/plants", "GET, HEAD"),
    ],
)
def test_other_method_is_an_envelope_with_allow(world: World, method: str, path: str, allow: str) -> None:
    answer = world.client.request(method, path)
    is_envelope(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow


def test_head_is_a_get_without_body(org: Org) -> None:
    answer = org.world.client.head("/trading/config", headers=org.jwt())
    assert (answer.status_code, answer.content) == (200, b"")


OPERATIONS = ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/docs/start.js", "/docs/nothing")


def test_security_headers_are_on_every_answer(world: World, org: Org) -> None:
    plant_id = org.plant()
    answers = [world.client.get(path) for path in ("/nowhere", *OPERATIONS)]
    answers += [world.client.delete("/trading/config"), world.client.get("/trading/config"), org.get("/trading/config")]
    answers += [org.get(f"/trading/plants/{plant_id}/telemetry/export"), org.post("/trading/config", json={"x": 1})]
    answers += [org.post("/trading/config", content=b" " * (5 * 1024 * 1024 + 1))]
    org.world.esm.fail("plant_config", RuntimeError())
    answers += [org.get(f"/trading/plants/{plant_id}/config", headers={"X-Request-Id": WANTED})]
    assert {answer.status_code for answer in answers} == {200, 400, 401, 404, 405, 413, 500}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] in {"no-store", "public, max-age=3600"}
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers


def test_browsers_are_told_to_come_by_https_alone_where_they_did(world: World) -> None:
    """The proxy that ends TLS is trusted from loopback, as uvicorn has it."""
    answer = world.client.get("/health/live", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_an_event_that_only_newer_code_knows_is_no_fault_of_ours() -> None:
    error = as_error(MapperDeserialisationError(f"plant:of-tomorrow{UNKNOWN}"))
    assert isinstance(error, Unavailable)
    assert error.retry_after
    assert as_error(MapperDeserialisationError("plant:linked: no JSON")) is None


def test_unforeseen_error_is_an_envelope_without_its_text(
    org: Org, caplog: pytest.LogCaptureFixture, access_log: AccessLog
) -> None:
    plant_id = org.plant()
    path = f"/trading/plants/{plant_id}/config"
    org.world.esm.fail("plant_config", RuntimeError("canary in a traceback"))
    answer = org.get(path, headers={"X-Request-Id": WANTED})
    assert is_envelope(answer, 500, "INTERNAL_SERVER_ERROR") == {}
    assert "canary" not in answer.text
    assert "canary" in caplog.text
    # The suite's watch over its answers sees it; by the next one it is logged.
    answers = access_log.answers
    assert org.get(path).status_code == 200
    assert f"GET /api/v1{path} ({WANTED})" in access_log.wanted
    assert access_log.answers > answers


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_health(world: World, prefix: str) -> None:
    assert world.client.get(f"{world.url}{prefix}/health/live").json() == {"status": "live"}
    ready = world.client.get(f"{world.url}{prefix}/health/ready")
    assert ready.json() == {"status": "ready", "checks": {"database": "ok", "queries": "ok"}}
    world.problems["database"] = "The database can't be reached"
    details = is_envelope(world.client.get(f"{world.url}{prefix}/health/ready"), 503, "SERVICE_UNAVAILABLE")
    assert details == {"checks": {"database": "The database can't be reached", "queries": "ok"}}


def test_metrics_name_routes_not_paths(org: Org) -> None:
    org.get(f"/trading/plants/{org.id}/config-log")
    org.world.client.get("/a-scanner-was-here")
    text = org.world.client.get(f"{org.world.url}/metrics").text
    route = "/api/v1/trading/plants/{plant_id}/config-log"
    assert f'wattledger_http_requests_total{{method="GET",route="{route}",status="404"}}' in text
    assert 'route="unmatched",status="404"' in text
    assert str(org.id) not in text
    assert "scanner" not in text


def test_docs_need_no_network(world: World) -> None:
    page = world.client.get(f"{world.url}/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"docs/{name}" in page.text
        assert world.client.get(f"{world.url}/docs/{name}").status_code == 200


def test_position_is_told_and_waited_for(org: Org) -> None:
    wrote = org.post("/trading/config", json={"esmClientId": "newer"})
    position = int(wrote.headers["x-position"])
    assert position == org.world.count()
    read = org.get("/trading/config", headers={"X-Position-AtLeast": str(position)})
    assert read.json() == wrote.json()
    assert int(read.headers["x-position"]) >= position


def test_position_that_is_not_reached_is_too_early(org: Org) -> None:
    answer = org.get("/trading/config", headers={"X-Position-AtLeast": "999999999"})
    is_envelope(answer, 425, "TOO_EARLY")
    assert int(answer.headers["x-position"]) > 0
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("given", ["-1", "x", "9" * 30, ""])
def test_position_must_be_one(org: Org, given: str) -> None:
    details = is_envelope(org.get("/trading/config", headers={"X-Position-AtLeast": given}), 400, "VALIDATION_ERROR")
    assert details["errors"] == ["X-Position-AtLeast: must be a position"]
