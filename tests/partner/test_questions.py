"""The routes that RabbitMQ asks: who may ask, what is no question, and what a login needs."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from application.context import acting
from application.organisations import MintedKey
from infra.settings import Settings
from interfaces.http.app import build_app
from interfaces.http.partner_logins import QUESTIONS
from tests.http.world import COMMANDER, Org, World, is_envelope


@pytest.fixture
def ask(world: World) -> Iterator[Any]:
    with httpx.Client(base_url=f"{world.url}/internal/rabbitmq", trust_env=False) as client:

        def asked(question: str, **form: str) -> str:
            answer = client.post(f"/{question}", data=form)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("text/plain")
            return answer.text

        yield asked


@pytest.fixture
def org(world: World) -> Org:
    return world.organisation()


@pytest.fixture
def key(org: Org) -> MintedKey:
    return org.key("trading:connect")


def test_a_key_that_may_connect_logs_in(ask: Any, org: Org, key: MintedKey) -> None:
    assert ask("user", username=org.slug, password=key.api_key) == "allow"
    assert ask("user", username=org.slug) == "allow"
    assert ask("vhost", username=org.slug, vhost="/", ip="127.0.0.1") == "allow"


def test_what_is_no_password(ask: Any, org: Org, key: MintedKey, world: World) -> None:
    other = world.organisation()
    foreign = other.key("trading:connect")
    admin = org.key("trading:admin")
    expired = org.key("trading:connect", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    wrong = key.api_key[:-1] + ("A" if key.api_key[-1] != "A" else "B")
    for password in ("", "guest", wrong, foreign.api_key, admin.api_key, expired.api_key, key.signing_key):
        assert ask("user", username=org.slug, password=password) == "deny"
    for nobody in ("nobody", "", "guest", str(org.id), org.slug.upper(), f"{org.slug} ", "a" * 51, "*"):
        assert ask("user", username=nobody, password=key.api_key) == "deny"
        assert ask("user", username=nobody) == "deny"
        assert ask("vhost", username=nobody, vhost="/", ip="127.0.0.1") == "deny"


def test_a_revoked_key_is_denied_at_once(ask: Any, org: Org, key: MintedKey, world: World) -> None:
    spare = org.key("trading:connect")
    with acting(COMMANDER):
        world.organisations.revoke_key(org.id, key.id)
    assert ask("user", username=org.slug, password=key.api_key) == "deny"
    assert ask("user", username=org.slug, password=spare.api_key) == "allow"
    with acting(COMMANDER):
        world.organisations.revoke_key(org.id, spare.id)
    status = {"username": org.slug, "vhost": "/", "resource": "queue", "permission": "read"}
    assert ask("user", username=org.slug) == "deny"
    assert ask("vhost", username=org.slug, vhost="/", ip="127.0.0.1") == "deny"
    assert ask("resource", name=f"vcp.{org.slug}.event.status", **status) == "deny"


def test_only_our_virtual_host(ask: Any, org: Org, key: MintedKey) -> None:
    of = {"username": org.slug, "permission": "write"}
    topic = {"resource": "topic", "name": "vcp", "routing_key": f"{org.slug}.command.mode", **of}
    for vhost, answer in (("/", "allow"), ("other", "deny"), ("", "deny")):
        assert ask("resource", vhost=vhost, resource="exchange", name="vcp", **of) == answer
        assert ask("topic", vhost=vhost, **topic) == answer
        assert ask("vhost", username=org.slug, vhost=vhost, ip="127.0.0.1") == answer


def test_rights_go_by_the_prefix_not_by_the_slug(ask: Any, org: Org, key: MintedKey) -> None:
    prefix = f"{org.slug}-x"
    assert org.post("/trading/config", json={"queuePrefix": prefix}).status_code == 200
    of = {"username": org.slug, "vhost": "/", "resource": "queue", "permission": "read"}
    assert ask("resource", name=f"vcp.{prefix}.event.status", **of) == "allow"
    assert ask("resource", name=f"vcp.{org.slug}.event.status", **of) == "deny"


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_no_question_is_denied(world: World, question: str) -> None:
    url = f"{world.url}/internal/rabbitmq/{question}"
    for body in (b"", b"username", b"username=a", b"username=a&username=b", b"\xff=1", b"{}", b"username=%ff&vhost=/"):
        answer = httpx.post(url, content=body, trust_env=False)
        assert (answer.status_code, answer.text) == (200, "deny")
    assert httpx.get(url, trust_env=False).status_code == 405


def test_an_event_log_that_can_t_be_asked_is_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    def fail(*_: object) -> None:
        raise psycopg.OperationalError("no route to host")

    monkeypatch.setattr(world.events, "find", fail)
    answer = httpx.post(f"{world.url}/internal/rabbitmq/user", data={"username": "acme"}, trust_env=False)
    is_envelope(answer, 503, "SERVICE_UNAVAILABLE")


def client_of(world: World, networks: str, address: str) -> TestClient:
    services = replace(
        world.services,
        registry=CollectorRegistry(),
        partner_networks=Settings(rabbitmq_auth_network=networks).auth_networks,
    )
    return TestClient(build_app(services), client=(address, 4711), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("networks", "address", "status"),
    [
        ("", "127.0.0.1", 404),
        ("127.0.0.0/8", "127.0.0.1", 200),
        ("10.0.0.0/8, fd00::/8", "10.1.2.3", 200),
        ("10.0.0.0/8, fd00::/8", "fd00::1", 200),
        ("10.0.0.0/8, fd00::/8", "::ffff:10.1.2.3", 200),
        ("10.0.0.0/8, fd00::/8", "11.0.0.1", 404),
        ("10.0.0.0/8", "testclient", 404),
        ("10.1.2.3", "10.1.2.3", 200),
        ("10.1.2.3", "10.1.2.4", 404),
    ],
)
def test_only_the_network_that_was_named_may_ask(world: World, networks: str, address: str, status: int) -> None:
    client = client_of(world, networks, address)
    for question in QUESTIONS:
        answer = client.post(f"/internal/rabbitmq/{question}", data={"username": "nobody"})
        assert answer.status_code == status
        assert (answer.text == "deny") is (status == 200)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_nobody_asks_through_a_proxy(world: World, header: str) -> None:
    client = client_of(world, "127.0.0.0/8", "127.0.0.1")
    assert client.post("/internal/rabbitmq/user", headers={header: "127.0.0.1"}).status_code == 404


def test_they_are_no_part_of_the_public_api(world: World) -> None:
    assert "rabbitmq" not in world.client.get("/openapi.json").text


def test_a_network_must_be_one() -> None:
    with pytest.raises(ValueError, match="rabbitmq_auth_network"):
        Settings(rabbitmq_auth_network="10.0.0.1/8")
