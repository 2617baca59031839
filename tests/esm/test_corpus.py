"""None of the hostile URLs and resolver answers is connected to, neither when saved nor when called; good ones are."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from application.ports import Partner
from domain.errors import EsmUnreachable, EsmUrlNotAllowed
from infra.embedded import EmbeddedPostgres
from infra.esm import Esm, Retries
from infra.public_address import Resolve
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.faults import Fault
from tests.esm.conftest import LOCAL
from tests.esm.corpus import GOOD, HOSTILE, PUBLIC, Good, Hostile, answers_of
from tests.esm.installation import Installation, installed
from tests.servers import database

ONCE = Retries(attempts=1)
_watches: list[Callable[[Any], None]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for watch in _watches:
            watch(arguments[1])


# Python itself reports every connection of the process, also one past all our seams; a hook can't be taken off.
sys.addaudithook(_audit)


@pytest.fixture
def attempts() -> Iterator[list[Any]]:
    """Every address that anything in this process tries to connect to, but for servers of ours."""
    made: list[Any] = []
    _watches.append(made.append)
    yield made
    _watches.remove(made.append)


@pytest.fixture(scope="module")
def installation(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Installation]:
    with database(postgres_server, migrated_template) as url, installed(url, []) as running:
        yield running


def calling(url: str, resolve: Resolve, tls: SSLContext, *allowed: str) -> None:
    """Asks a partner for its plants, past what is checked when the URL is saved."""
    esm = Esm(allowed, retries=ONCE, resolve=resolve, tls=tls)
    try:
        esm.plants(Partner(uuid4(), url, "id", "secret"))
    finally:
        esm.close()


def test_the_corpus_is_large_and_each_of_it_differs() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 300
    assert len({each.url for each in GOOD}) == len(GOOD) >= 50


def test_none_is_saved_or_connected_to(attempts: list[Any], tls: SSLContext) -> None:
    assert [told for case in HOSTILE for told in let_through(case, tls)] == []
    assert attempts == []


def let_through(case: Hostile, tls: SSLContext) -> Iterator[str]:
    """What passes, or is refused in words that tell what a name resolved to: nothing should."""
    esm = Esm(retries=ONCE, resolve=lambda _host, _port: answers_of(case), tls=tls)
    partner = Partner(uuid4(), case.url, "id", "secret")
    ways: dict[str, Callable[[], object]] = {
        "saved": lambda: esm.check_url(case.url),
        "called": lambda: esm.plants(partner),
    }
    for way, reach in ways.items():
        try:
            reach()
            yield f"{way}: {case}"
        except (EsmUrlNotAllowed, EsmUnreachable) as refused:
            if any(answer in str(refused) for answer in case.answers):
                yield f"{way}: {case}: {refused}"
    esm.close()


def test_the_api_names_the_field_and_records_nothing(
    installation: Installation, attempts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Hostile] = []
    ours = the_system_resolves(installation, monkeypatch, lambda: answers_of(asked[-1]))
    with installation.organisation() as organisation:
        before = installation.parts.events.recorder.max_notification_id()
        for case in HOSTILE:
            asked.append(case)
            answer = organisation.configure(esmApiUrl=case.url)
            body = answer.json()
            assert (answer.status_code, body["code"]) == (400, "VALIDATION_ERROR"), case
            (error,) = body["details"]["errors"]
            assert error.startswith("esmApiUrl: "), case
            # What no text field takes is refused before it is looked at as a URL.
            if case.url.isprintable() and 0 < len(case.url) <= 2048:
                assert body["details"]["reason"] == "ESM_URL_NOT_ALLOWED", case
            assert not any(f"{answer}" in error for answer in case.answers if answer not in case.url), case
        assert installation.parts.events.recorder.max_notification_id() == before
        assert organisation.get("/config").json()["esmApiUrl"] is None
    assert {attempt[1] for attempt in attempts} <= {ours}


def the_system_resolves(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, answers_now: Callable[[], Sequence[str]]
) -> int | None:
    """Every name is at these addresses, but our own API, whose port this gives."""
    real, ours = socket.getaddrinfo, urlsplit(installation.url).port

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if port == ours:
            return real(host, port, *rest, **more)
        families = {answer: socket.AF_INET6 if ":" in answer else socket.AF_INET for answer in answers_now()}
        return [(family, socket.SOCK_STREAM, 6, "", (answer, port)) for answer, family in families.items()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return ours


def test_a_name_that_turns_once_it_is_saved_fails_each_sync(
    installation: Installation, attempts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [PUBLIC]
    ours = the_system_resolves(installation, monkeypatch, lambda: answers)
    partner = {"esmApiUrl": "https://rebinding.example", "esmClientId": "id", "esmClientSecret": "canary-secret"}
    with installation.organisation(**partner) as organisation:
        answers[:] = ["169.254.169.254"]
        refused = organisation.post("/plants/sync")
        told = "The ESM API URL is not allowed: its host is not a public address"
        assert (refused.status_code, refused.json()["message"]) == (503, told)
        assert organisation.get("/config").json()["lastSyncError"] == told
    assert {attempt[1] for attempt in attempts} <= {ours}


@pytest.mark.parametrize("turned", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe"])
def test_a_dns_server_that_answers_differently_the_second_time_gains_nothing(
    turned: str, attempts: list[Any], tls: SSLContext
) -> None:
    answers = iter([[PUBLIC], [turned]])
    esm = Esm(retries=ONCE, resolve=lambda _host, _port: next(answers), tls=tls)
    esm.check_url("http://rebinding.example")
    with pytest.raises(EsmUnreachable, match="its host is not a public address"):
        esm.plants(Partner(uuid4(), "http://rebinding.example", "id", "secret"))
    esm.close()
    assert attempts == []


@pytest.mark.parametrize("route", ["token", "list"])
def test_a_redirect_to_metadata_is_not_followed(
    route: str, sandbox: SandboxEsm, attempts: list[Any], tls: SSLContext
) -> None:
    sandbox.faults.add(Fault.model_validate({"route": route, "fault": "redirect", "times": 9}))
    esm = Esm(LOCAL, tls=tls)
    with pytest.raises(EsmUnreachable, match="ESM answered 302 to"):
        esm.plants(Partner(uuid4(), sandbox.url, sandbox.client_id, sandbox.client_secret))
    esm.close()
    assert set(attempts) == {("127.0.0.1", urlsplit(sandbox.url).port)}


@pytest.fixture
def recorder() -> Iterator[tuple[int, list[bytes]]]:
    """The port of a server, and the first bytes of everyone who connected to it."""
    heard: list[bytes] = []

    def listen(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(2)
                    heard.append(connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("good", GOOD, ids=str)
def test_good_ones_are_connected_to(
    good: Good, recorder: tuple[int, list[bytes]], tls: SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, heard = recorder
    asked: list[tuple[str, int]] = []
    connect = socket.create_connection

    def to_the_recorder(address: tuple[str, int], *rest: Any, **options: Any) -> socket.socket:
        asked.append(address)
        return connect(("127.0.0.1", port), *rest, **options)

    monkeypatch.setattr(socket, "create_connection", to_the_recorder)
    Esm(resolve=lambda _host, _port: [PUBLIC], tls=tls).check_url(good.url)
    with pytest.raises(EsmUnreachable, match="token request"):
        calling(good.url, lambda _host, _port: [PUBLIC], tls)
    assert asked == [(good.address, good.port)]
    (first,) = heard
    if good.url.lower().startswith("https"):
        assert good.name.encode() in first  # the server name of the handshake
    else:
        host = f"[{good.name}]" if ":" in good.name else good.name
        assert f"\r\nHost: {host}{'' if good.port == 80 else f':{good.port}'}\r\n".encode() in first
        assert b"/trading/token HTTP/1.1\r\n" in first
