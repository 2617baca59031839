"""Over a real socket: keep-alive holds, TLS and Host keep the name, and what one partner sets stays with it."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from application.ports import Partner
from domain.errors import EsmUnreachable
from infra.esm import Esm, Retries, Timeouts
from tests.esm.certificates import self_signed
from tests.esm.conftest import LOCAL

NAME = "partner.example"


@dataclass
class Seen:
    """What the server saw."""

    connections: set[object] = field(default_factory=set)
    sni: set[str | None] = field(default_factory=set)
    headers: list[dict[str, str]] = field(default_factory=list)


@dataclass
class TlsServer:
    """A partner with a certificate for its name."""

    port: int
    trust: ssl.SSLContext
    seen: Seen

    def url(self, host: str = NAME) -> str:
        return f"https://{host}:{self.port}/base"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the partner's name only."""
    return self_signed(tmp_path_factory.mktemp("tls") / "partner.pem", NAME, "192.0.2.1")


@pytest.fixture
def server(certificate: Path) -> Iterator[TlsServer]:
    seen = Seen()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.connections.add(self.client_address)
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            token = b'{"access_token": "t", "token_type": "Bearer", "expires_in": 60}'
            body = token if self.path.endswith("/trading/token") else b'{"plants": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", "session=of-another-organisation")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Says nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: seen.sni.add(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as http:
        http.daemon_threads = True
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield TlsServer(http.server_port, ssl.create_default_context(cafile=certificate), seen)
        http.shutdown()


@pytest.fixture
def dripping(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that sends `start`, then one piece over and over, without an end."""
    start, piece = request.param
    ending = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(start)
            while not ending.wait(0.01):
                connection.sendall(piece)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        ending.set()
        listener.shutdown(socket.SHUT_RDWR)


def partner(url: str) -> Partner:
    return Partner(uuid4(), url, "id", "secret")


def connecting(server: TlsServer) -> Esm:
    """An adapter for which every name is this server."""
    return Esm(
        LOCAL,
        timeouts=Timeouts(2, 5),
        retries=Retries(attempts=1),
        resolve=lambda _host, _port: ["127.0.0.1"],
        tls=server.trust,
    )


def test_tls_and_host_keep_the_name_and_one_connection_serves_all(server: TlsServer) -> None:
    esm = connecting(server)
    for _ in range(3):
        assert esm.plants(partner(server.url())).plants == ()
    esm.close()
    assert server.seen.sni == {NAME}
    assert {headers["host"] for headers in server.seen.headers} == {f"{NAME}:{server.port}"}
    assert len(server.seen.connections) == 1
    assert len(server.seen.headers) == 6


def test_a_cookie_does_not_come_back_with_the_next_organization(server: TlsServer) -> None:
    esm = connecting(server)
    for _ in range(2):
        esm.plants(partner(server.url()))
    esm.close()
    assert not any("cookie" in headers for headers in server.seen.headers)


def test_a_certificate_of_another_name_is_refused(server: TlsServer) -> None:
    esm = connecting(server)
    for url in (server.url("other.example"), f"https://127.0.0.1:{server.port}"):
        with pytest.raises(EsmUnreachable, match=r"^ESM can't be reached for the token request$"):
            esm.plants(partner(url))
    esm.close()
    assert server.seen.headers == []


def test_a_name_that_turned_hostile_is_a_clean_failure(server: TlsServer) -> None:
    answers = iter([["93.184.216.34"], ["10.0.0.1"]])
    esm = Esm(resolve=lambda _host, _port: next(answers), tls=server.trust)
    esm.check_url(server.url())
    with pytest.raises(EsmUnreachable, match=r"^The ESM API URL is not allowed: its host is not a public address$"):
        esm.plants(partner(server.url()))
    with pytest.raises(EsmUnreachable, match=r"^The ESM API URL is not allowed: it must be an http or https URL$"):
        esm.plants(partner("ftp://partner.example"))
    esm.close()


@pytest.mark.parametrize(
    "dripping",
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" "),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["status", "header", "body", "hints", "chunks"],
    indirect=True,
)
def test_drips_do_not_outlast_the_deadline(hasty: Esm, dripping: int) -> None:
    started = time.monotonic()
    with pytest.raises(EsmUnreachable):
        hasty.plants(partner(f"http://127.0.0.1:{dripping}"))
    assert time.monotonic() - started < 30  # they have no end


@pytest.mark.parametrize("dripping", [(b"", b"\x16\x03\x01")], ids=["handshake"], indirect=True)
def test_a_stalled_handshake_ends_in_time(hasty: Esm, dripping: int) -> None:
    with pytest.raises(EsmUnreachable):
        hasty.plants(partner(f"https://127.0.0.1:{dripping}"))
