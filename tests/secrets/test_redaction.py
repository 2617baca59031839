"""No secret leaves through a log line: neither one that we held, nor whatever has the shape of one."""

import io
import json
import logging
import string
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import logs, redaction
from infra.operator_keys import OperatorKey
from infra.redaction import LEAST_LENGTH, redacted, remember

URL_SAFE = string.ascii_letters + string.digits + "-_"
# A mark that no log line has by itself tells a secret that got through; * is what we write instead.
WORDS = st.text(URL_SAFE, min_size=8, max_size=40).map(lambda text: f"Zq7{text}7qZ")
ANYTHING = st.text(min_size=LEAST_LENGTH, max_size=60).filter(lambda text: "*" not in text and text.strip() == text)
for_many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
for_some = settings(for_many, max_examples=8)


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", type(redaction._known)())


class Lines:
    """A logger of its own, set up as the process's would be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, readable: bool) -> None:
        self.stream = io.StringIO()
        root = logging.getLogger()
        for name in ("handlers", "level"):
            monkeypatch.setattr(root, name, getattr(root, name))
        logs._install(logging.StreamHandler(self.stream), "DEBUG", readable=readable)
        self.log = logging.getLogger("tests.redaction")

    def taken(self) -> str:
        said = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return said


@pytest.fixture(params=[False, True], ids=["json", "text"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, nothing_known: None) -> Iterator[Lines]:
    handlers = list(logging.getLogger().handlers)
    yield Lines(monkeypatch, readable=request.param)
    logging.getLogger().handlers = handlers


def say(lines: Lines, text: str) -> str:
    """The text in every place that a log line has."""
    log = lines.log
    log.warning(text.replace("%", "%%"))
    log.warning("because of %s and %r", text, [text])
    log.warning("with fields", extra={"error": text, "nested": {"list": [text, (text,)], "bytes": text.encode()}})
    log.warning("with an object", extra={"error": ValueError(text)})
    try:
        try:
            raise ConnectionError(text)
        except ConnectionError as error:
            raise RuntimeError({"text": text}) from error
    except RuntimeError:
        log.exception("failed", stack_info=True)
    return lines.taken()


@for_many
@given(secret=ANYTHING)
def test_a_secret_that_we_held_is_in_no_line(lines: Lines, secret: str) -> None:
    remember(secret)
    said = say(lines, f"refused <{secret}> by the partner")
    spellings = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], json.dumps(repr(secret)[1:-1])[1:-1]}
    assert not [each for each in spellings if f"<{each}>" in said]
    assert "partner" in said
    assert f"/{quote(secret, safe='')}/" not in redacted(f"GET /{quote(secret, safe='')}/")


SHAPES = [
    "postgresql://wattledger:{}@db:5432/x",
    "connection to amqps://acme:{}@broker/%2f failed",
    "amqp://:{}@broker",
    "missing = after acme:{}@db in connection info string",
    "password={} host=db",
    "connection failed: dbname=x password='{}' user=y",
    "{{'client_secret': '{}', 'grant_type': 'client_credentials'}}",
    '{{"clientSecret": "{}", "name": "x"}}',
    '{{"esmClientSecret":"{}"}}',
    "grant_type=client_credentials&client_secret={}&client_id=wl",
    '{{"access_token": "{}", "token_type": "Bearer"}}',
    "Authorization: Bearer {}",
    "authorization={}",
    "[(b'Authorization', b'Bearer {}'), (b'Host', b'x')]",
    "Headers({{'authorization': 'Basic {}'}})",
    "X-API-Key: {}",
    "('x-api-key', '{}')",
    "{{'signingKey': '{}'}}",
    "signing_key={}",
    "bearer {}",
    "wl_0123456789abcdef0123456789abcdef_{}",
    "token eyJhbGciOiJIUzI1NiJ9.{}.c2lnbmF0dXJl expired",
    "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
    "Cookie: session={}",
    "WATTLEDGER_JWT_SECRET={}",
]


@pytest.mark.parametrize("shape", SHAPES)
@for_some
@given(secret=WORDS)
def test_what_has_the_shape_of_a_secret_is_in_no_line(lines: Lines, shape: str, secret: str) -> None:
    said = say(lines, shape.format(secret))
    assert secret not in said
    assert secret[3:] not in said


@for_many
@given(secret=st.text(string.ascii_letters + string.digits + " @/:,;&!?#%", min_size=8).map(lambda s: f"Zq7{s}Zq7"))
def test_quoted_values_end_with_their_quotes_only(nothing_known: None, secret: str) -> None:
    for text in (f'{{"clientSecret": "{secret}", "a": "kept"}}', f"{{'password': '{secret}', 'a': 'kept'}}"):
        said = redacted(text)
        assert "Zq7" not in said
        assert "kept" in said


@for_many
@given(password=st.text(string.ascii_letters + string.digits + ":/@?#%", min_size=8).map(lambda s: f"Zq7{s}Zq7"))
def test_a_password_in_a_url_ends_with_its_last_at(nothing_known: None, password: str) -> None:
    said = redacted(f"can't reach postgresql://wattledger:{password}@db.example.com/x today")
    assert "Zq7" not in said
    assert said.endswith("@db.example.com/x today")


def test_keys_of_ours(lines: Lines) -> None:
    for key in (OperatorKey.random() for _ in range(20)):
        said = say(lines, f"sealed under {key}, {key},{key} and {key!r}; signed with {key.key.hex()}")
        assert b64encode(key.key).decode() not in said
        assert key.key.hex() not in said


@pytest.mark.parametrize(("name", "value"), [("client_secret", "ab"), ("password", "x y"), ("api_key", b"abc")])
def test_a_field_with_a_telling_name_is_struck_out_whatever_it_holds(lines: Lines, name: str, value: Any) -> None:
    lines.log.warning("told", extra={name: value, "inner": {name: value}})
    said = lines.taken()
    assert said.count("***") == 2
    assert str(value) not in said.replace("api_key", "")


@pytest.mark.parametrize(
    "text",
    [
        "consumed queues changed",
        "ESM refused the client id and secret",
        "ESM did not answer the token request in time",
        "Another sync of this organization is running",
        "GET https://esm.example.com/api/trading/plant/list answered 500",
        "connection to postgresql://wattledger@db:5432/x lost at 12:30:15",
        "plant 5e7a3c1e-1a57-4e0c-9a39-0f6d4c6b2a11 is at position 12345, version: 7",
        f"keep {'0f' * 32}@17 elsewhere",  # an anchor of the log's seals
        '{"event": "acme.event.telemetry.realtime", "plantId": "esm-001"}',
    ],
)
def test_what_is_no_secret_is_kept(nothing_known: None, text: str) -> None:
    assert redacted(text) == text


def test_the_least_lately_used_secret_is_forgotten_first(nothing_known: None) -> None:
    remember("first-secret")
    for number in range(redaction.KEPT):
        remember("first-secret")
        remember(f"secret-{number}")
    assert redacted("first-secret secret-0") == "*** secret-0"
    remember("short")
    assert redacted("short") == "short"
