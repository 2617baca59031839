"""A private node of an installed RabbitMQ: own name, ports, cookie and epmd, everything it writes under one home."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil

from infra.embedded.processes import HomeLock, ServerFailed, become_free, end, free_ports, wait_until

INSTALLATIONS = Path("/usr/lib/rabbitmq/lib")
PORTS = ("amqp", "management", "distribution", "epmd")
PORTS_PATIENCE_S = 5.0
HELLO = b"AMQP\x00\x00\x09\x01"


class PrivateRabbitmq:
    """Runs the node of `home` from start() to stop(), or as a context manager; its ports stay the same over restarts.

    Processes that a killed owner left behind are ended at the next start. They are told by their HOME, which is the
    node's directory, so no process of anybody else is ever touched.
    """

    def __init__(self, home: Path, *, plugins: Sequence[str] = (), config: Sequence[str] = ()) -> None:
        """`plugins` are names such as "rabbitmq_management", which also makes `management_url` answer; `config` are
        more lines of rabbitmq.conf."""
        self.home = home.absolute() / "rabbitmq"
        self._plugins = tuple(plugins)
        self._config = tuple(config)
        self._lock = HomeLock(home.absolute() / "rabbitmq.lock")
        self._log = self.home / "node.log"
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @staticmethod
    def installed() -> bool:
        """Whether this machine has a RabbitMQ to run a node of."""
        return _programs() is not None and shutil.which("epmd") is not None

    @staticmethod
    def has_plugins(names: Sequence[str]) -> bool:
        """Whether the node that would run brings all of these."""
        programs = _programs()
        return programs is not None and all(any((programs.parent / "plugins").glob(f"{name}-*")) for name in names)

    @property
    def url(self) -> str:
        """The AMQP URL of the virtual host `/`, as the node's administrator."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a virtual host of this node."""
        return f"amqp://guest:guest@127.0.0.1:{self._ports['amqp']}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """Where the management API answers, without credentials, if its plugin was asked for."""
        return f"http://127.0.0.1:{self._ports['management']}"

    def start(self) -> None:
        """Returns when the node accepts AMQP; raises ServerFailed with its last words when it does not."""
        programs = _programs()
        epmd = shutil.which("epmd")
        if programs is None or epmd is None:
            raise ServerFailed("RabbitMQ is not installed; on Debian: apt-get install rabbitmq-server")
        self._lock.acquire()
        try:
            end(self._processes())
            self._prepare()
            self._run([epmd, "-port", str(self._ports["epmd"]), "-address", "127.0.0.1"])
            node = self._run([str(programs / "rabbitmq-server")])
            wait_until(self._is_ready, psutil.Process(node.pid), self._log, seconds=120)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ends the node in good order and its epmd with it. Does nothing if it does not run."""
        self._end((signal.SIGTERM, 30.0))

    def kill(self) -> None:
        """Ends node and epmd at once, as a power cut would; start() brings them back on the same ports."""
        self._end()

    def _end(self, *steps: tuple[signal.Signals, float]) -> None:
        if not self._lock.is_held:
            return
        try:
            # The node says goodbye to epmd, so epmd ends after it.
            end([process for process in self._processes() if process.info["name"] == "beam.smp"], *steps)
            end(self._processes())
            for child in self._children:
                child.wait()
            self._children = []
        finally:
            self._lock.release()

    def _processes(self) -> list[psutil.Process]:
        found = psutil.process_iter(["environ", "name"])
        return [process for process in found if (process.info["environ"] or {}).get("HOME") == str(self.home)]

    @property
    def _ports(self) -> dict[str, int]:
        try:
            words = (self.home / "ports").read_text().split()
        except FileNotFoundError:
            raise ServerFailed("The private RabbitMQ has not been started") from None
        return dict(zip(PORTS, map(int, words), strict=True))

    def _prepare(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        ports = self.home / "ports"
        if not ports.exists() or not become_free(self._ports.values(), PORTS_PATIENCE_S):
            ports.write_text(" ".join(map(str, free_ports(len(PORTS)))))
        plugins = ",".join(self._plugins)
        (self.home / "enabled_plugins").write_text(f"[{plugins}].\n")
        (self.home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._ports['amqp']}\n"
            "log.file.level = warning\n"
            "disk_free_limit.absolute = 50MB\n"
            + (
                f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._ports['management']}\n"
                if "rabbitmq_management" in self._plugins
                else ""
            )
            + "".join(f"{line}\n" for line in self._config)
        )

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                env=self._environment(),
                # In a session of its own, so that Ctrl-C reaches us, and the node only when we say so.
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def _environment(self) -> dict[str, str]:
        ports, home = self._ports, str(self.home)
        local = "{127,0,0,1}"
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "RABBITMQ_NODENAME": "wattledger@localhost",
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # the machine's own RabbitMQ settings are not ours
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/config",
            "RABBITMQ_PID_FILE": f"{home}/pid",
            # Idle schedulers that spin would take the core that Python works on.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {local} "
            "+sbwt none +sbwtdcpu none +sbwtdio none",
            # Makes the script become the Erlang VM instead of a shell that waits for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _is_ready(self) -> bool:
        try:
            if "rabbitmq_management" in self._plugins:
                # By a connection: to try whether the port is free would take it, just when the node wants it.
                socket.create_connection(("127.0.0.1", self._ports["management"]), timeout=5).close()
            with socket.create_connection(("127.0.0.1", self._ports["amqp"]), timeout=5) as connection:
                connection.sendall(HELLO)
                return connection.recv(1) == b"\x01"  # a method frame, Connection.Start
        except OSError:
            return False


def _programs() -> Path | None:
    found = sorted(INSTALLATIONS.glob("rabbitmq_server-*/sbin"))
    return found[-1] if found else None
