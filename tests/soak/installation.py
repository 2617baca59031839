"""An installation of real processes on servers of its own, each of which can be killed, held and restarted."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import psycopg

from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from infra.secret_box import OperatorKey
from tests.access_log import access_log
from tests.broker.proxy import Proxy
from tests.ports import free_port
from tests.servers import make_template, temporary_home

PATIENCE_S = 120.0


class Program:
    """A `wattledger` command; over all its lives it says `ready` in the same way."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path, port: int | None) -> None:
        self._words = words
        self._environment, self.log, self._port = environment, log, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens, or at once if it has no port."""
        self._await(self._launch("interfaces.cli", *self._words))

    def start_skewed(self, seed: int) -> None:
        """The same, with a clock that is wrong until the next start."""
        self._await(self._launch("tests.soak.skewed", str(seed), *self._words))

    def launch(self) -> None:
        """Returns at once."""
        self._launch("interfaces.cli", *self._words)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Its exit status."""
        self._end(signal.SIGTERM)
        return self._process.returncode if self._process else 0

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(self._process.pid)] if self._process and self._process.poll() is None else []

    def _launch(self, module: str, *words: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", module, *words]
            self._process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
        return self._process

    def _await(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._port is not None and not listens(self._port):
            assert process.poll() is None, f"it ended: see {self.log}"
            assert time.monotonic() < deadline, f"it does not listen: see {self.log}"
            time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_S)


class LastingProxy(Proxy):
    """Also while nobody is behind it."""

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._sockets += near, far
            self._join(near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()


class Installation:
    """PostgreSQL, RabbitMQ behind a proxy, a sandbox ESM, APIs and workers; `url` is the database's."""

    def __init__(self, home: Path, apis: int, workers: int) -> None:
        self.logs = home
        self.postgres = EmbeddedPostgres(home)
        self.rabbitmq = PrivateRabbitmq(home)
        self.key = OperatorKey.random()
        self.api_ports = [free_port() for _ in range(apis)]
        self.esm_port = free_port()
        self._workers = workers
        self.programs: dict[str, Program] = {}

    @property
    def api_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.api_ports]

    def start(self) -> None:
        """The servers, with a migrated database; then `run` starts the programs."""
        self.postgres.start()
        self.url = self.postgres.url_of(make_template(self.postgres))
        self.rabbitmq.start()
        self.amqp_url = self.rabbitmq.url_of("/")
        self.proxy = LastingProxy(self.amqp_url)
        self.proxy.__enter__()
        self.programs["esm"] = self._program("esm", ["sandbox", "--port", str(self.esm_port)], self.esm_port)
        for number, port in enumerate(self.api_ports, 1):
            self.programs[f"api-{number}"] = self._program(f"api-{number}", ["serve"], port)
        for number in range(1, self._workers + 1):
            self.programs[f"worker-{number}"] = self._program(f"worker-{number}", ["work"], None)

    def end(self) -> None:
        for program in self.programs.values():
            with suppress(OSError):
                program.kill()
            access_log.read(program.log)
        self.proxy.__exit__(None, None, None)
        self.rabbitmq.kill()
        self.postgres.kill()

    def _program(self, name: str, words: Sequence[str], port: int | None) -> Program:
        environment = environment_of(self.url, self.proxy.url, self.key, http_port=port or 0)
        return Program(words, environment, self.logs / f"{name}.log", port)

    def faults(self, hold: Callable[[], None], seed: int) -> dict[str, Callable[[], None]]:
        """By name; each returns when what it hit listens again. `hold` waits as long as something is held; `seed` is
        that of clocks that jump."""
        server: dict[str, EmbeddedPostgres | PrivateRabbitmq | Program]
        server = {"postgres": self.postgres, "rabbitmq": self.rabbitmq}
        own = {"postgres": self._of_postgres, "rabbitmq": self._of_rabbitmq}
        found: dict[str, Callable[[], None]] = {"nothing": _steps()}  # how long it takes on this machine in any case
        for name, each in (server | self.programs).items():
            processes = each.processes if isinstance(each, Program) else own[name]
            found[f"{name} killed"] = _steps(each.kill, each.start)
            found[f"{name} held"] = _held(processes, hold)
            found[f"{name} restarted"] = _steps(each.stop, each.start)
            if isinstance(each, Program):
                found[f"{name} skewed"] = _steps(each.stop, partial(each.start_skewed, seed))
        found["amqp cut"] = self.proxy.cut
        found["amqp dead"] = _steps(self.proxy.hold, hold, self.proxy.flow)
        found["sql cut"] = self._cut_sql
        return found

    def _of_postgres(self) -> list[psutil.Process]:
        server = self.postgres._server()
        assert server is not None
        return [server, *server.children(recursive=True)]

    def _of_rabbitmq(self) -> list[psutil.Process]:
        return [each for each in self.rabbitmq._processes() if each.info["name"] == "beam.smp"]

    def _cut_sql(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND application_name LIKE 'wattledger%'"
            )


def environment_of(url: str, amqp_url: str, key: OperatorKey, **more: object) -> dict[str, str]:
    """Of a program: the settings that all have, and `more` by their names in lower case."""
    settings = {
        "database_url": url,
        "amqp_url": amqp_url,
        "secret_keys": key,
        "esm_allowed": "127.0.0.0/8",
        "log_level": "WARNING",
        **dict.fromkeys(("reads_per_minute", "writes_per_minute", "syncs_per_minute"), 1_000_000),
        **more,
    }
    ours = {f"WATTLEDGER_{name.upper()}": str(value) for name, value in settings.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("WATTLEDGER_")} | ours


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def installed(apis: int = 2, workers: int = 3) -> Iterator[Installation]:
    """Its servers run; its programs are the caller's to start."""
    with temporary_home() as home:
        installation = Installation(home, apis, workers)
        try:
            installation.start()
            yield installation
        finally:
            installation.end()


def _steps(*steps: Callable[[], object]) -> Callable[[], None]:
    def do() -> None:
        for step in steps:
            step()

    return do


def _held(processes: Callable[[], list[psutil.Process]], hold: Callable[[], None]) -> Callable[[], None]:
    def do() -> None:
        held = processes()
        _send(held, signal.SIGSTOP)
        try:
            hold()
        finally:
            _send(held, signal.SIGCONT)

    return do


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
