"""A PostgreSQL server of our own, run from the programs that a wheel carries and reached by a Unix socket."""

import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil

from infra.embedded.accounts import RELEASE, Account, account_for, base_directory, programs
from infra.embedded.processes import HomeLock, ServerFailed, end, end_of, is_alive, wait_until

log = logging.getLogger(__name__)

SOCKET = ".s.PGSQL.5432"
LONGEST_LOG = 10_000_000  # bytes; a start cuts the log when it is over that
LONGEST_SOCKET = 103 if os.uname().sysname == "Darwin" else 107  # bytes of sockaddr_un.sun_path, less its NUL

# No TCP port, and a socket for its owner alone, because within the home everybody is trusted.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "cluster_name": "wattledger",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """Runs the server of `home` from start() to stop(), or as a context manager; one owner at a time.

    A server that a killed owner left behind is ended at the next start, after which the data is served anew.
    """

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are server settings on top of SETTINGS, such as {"fsync": "off"} for tests."""
        self.home = home.absolute()
        self._settings = {**SETTINGS, **(settings or {})}
        self._log = self.home / "postgres.log"
        self._lock = HomeLock(self.home / "postgres.lock")
        self._base: Path | None = None
        self._socket: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def data(self) -> Path:
        """The data directory; not always under the home, see `base_directory`."""
        if self._base is None:
            raise ServerFailed("The embedded PostgreSQL has not been started")
        return self._base / "data"

    @property
    def url(self) -> str:
        """The libpq URL of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The libpq URL of a database of this server."""
        if self._socket is None:
            raise ServerFailed("The embedded PostgreSQL is not running")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self._socket), safe='')}"

    @classmethod
    def running_at(cls, home: Path) -> str | None:
        """The URL of the server that another process runs in `home`, for commands that work beside it; None if none."""
        server = cls(home)
        server._base = (server.home / "postgres").resolve()
        if _postmaster(server.data) is None:
            return None
        server._socket = Path(_pid_file(server.data)[4])
        return server.url

    def start(self) -> None:
        """Returns when the server accepts connections; raises ServerFailed with its last words when it does not."""
        self._lock.acquire()
        try:
            account = account_for(self.home / "postgres")
            self._base = base_directory(self.home, account)
            bin_directory = programs(account)
            if not self.data.exists():
                self._initialise(bin_directory, account)
            self._check_release()
            self._end_server()
            socket = _socket_directory(self._base, account)
            # Their pid may be somebody else's by now, and PostgreSQL would take that process for a server of this data.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            (socket / f"{SOCKET}.lock").unlink(missing_ok=True)
            self._run(bin_directory, account, socket)
        except BaseException:
            self.stop()
            raise
        self._socket = socket

    def stop(self) -> None:
        """Ends the server: sessions are rolled back, the data is left clean. Does nothing if there is none."""
        try:
            self._end_server()
        finally:
            self._socket = None
            self._lock.release()

    def kill(self) -> None:
        """Ends the server as a power cut would, for tests of what survives; start() brings it back."""
        server = self._server()
        if server is not None:
            end([server, *server.children(recursive=True)])
        self._reap()
        self._socket = None
        self._lock.release()

    def _initialise(self, bin_directory: Path, account: Account) -> None:
        scratch = self.data.with_name("data.new")  # moved into place when whole, as initdb can be interrupted
        shutil.rmtree(scratch, ignore_errors=True)
        command = [str(bin_directory / "initdb"), "--pgdata", str(scratch), "--username=postgres", "--auth=trust"]
        # The built-in locale sorts alike on every machine and through every upgrade of its C library.
        command += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        if self._spawn(command, account).wait():
            raise ServerFailed(f"initdb failed. {end_of(self._log)}")
        scratch.rename(self.data)

    def _check_release(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != RELEASE:
            raise ServerFailed(
                f"{self.data} is of PostgreSQL {found}, this Wattledger carries {RELEASE}: pg_upgrade it"
            )

    def _run(self, bin_directory: Path, account: Account, socket: Path) -> None:
        command = [str(bin_directory / "postgres"), "-D", str(self.data), "-k", str(socket)]
        command += [f"--{name}={value}" for name, value in self._settings.items()]
        child = self._child = self._spawn(command, account)
        wait_until(lambda: _is_ready(self.data, child.pid), psutil.Process(child.pid), self._log, seconds=60)

    def _spawn(self, command: list[str], account: Account) -> subprocess.Popen[bytes]:
        # Variables such as PGPORT or LANG of the caller would reach into the server; it gets none of them.
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        # In a session of its own, so that Ctrl-C reaches us, and the server only when we say so.
        with self._log.open("ab") as output:
            if output.tell() > LONGEST_LOG:
                output.truncate(0)
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
                start_new_session=True,
                user=account.uid,
                group=account.gid,
                extra_groups=account.groups,
            )

    def _end_server(self) -> None:
        server = self._server()
        if server is not None:
            # SIGINT: a fast shutdown. SIGQUIT: an immediate one, which the next start recovers from.
            end([server], (signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))
        self._reap()

    def _server(self) -> psutil.Process | None:
        """The live server we may end: our child, perhaps too young for a pid file, or what an owner left behind."""
        if not self._lock.is_held or self._base is None:
            return None
        if self._child is not None and self._child.poll() is None:
            return psutil.Process(self._child.pid)
        return _postmaster(self.data)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None


def _socket_directory(base: Path, account: Account) -> Path:
    """Where the socket lies: with the data, or in a temporary directory if that path is too long for a socket."""
    if len(os.fsencode(base / SOCKET)) <= LONGEST_SOCKET:
        return base
    short = Path("/tmp") / f"wattledger-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}"  # noqa: S108
    try:
        short.mkdir(mode=0o700)
        account.own(short)
    except FileExistsError:
        found, owner = short.lstat(), os.geteuid() if account.uid is None else account.uid
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise ServerFailed(f"{short} belongs to somebody else; choose a shorter home") from None
    log.info("The path of %s is too long for a Unix socket, so the socket lies in %s", base, short)
    return short


def _pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid: pid, data directory, start time, port, socket directory, address, memory, status."""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []
    except PermissionError:
        raise ServerFailed(f"{data} belongs to another user; run as that one or name another home") from None


def _is_ready(data: Path, pid: int) -> bool:
    lines = _pid_file(data)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _postmaster(data: Path) -> psutil.Process | None:
    """The live server of this data directory; a stale file may name a pid that is somebody else's by now."""
    try:
        process = psutil.Process(int(_pid_file(data)[0]))
        return process if str(data) in process.cmdline() and is_alive(process) else None
    except (IndexError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
