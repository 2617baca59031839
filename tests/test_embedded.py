"""The embedded servers keep their data over every kind of end, and touch nothing that is not theirs."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import psutil
import psycopg
import pytest
from psycopg_pool import PoolTimeout

from infra.embedded import EmbeddedPostgres, PrivateRabbitmq, ServerFailed
from infra.postgres import pool
from tests.conftest import NO_RABBITMQ
from tests.servers import FAST, temporary_home

OWNER = """
import sys, pathlib, infra.embedded as embedded
server = getattr(embedded, sys.argv[1])(pathlib.Path(sys.argv[2]))
server.start()
print(server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as directory:
        yield directory


def started_and_orphaned(kind: type[EmbeddedPostgres | PrivateRabbitmq], home: Path) -> str:
    """The URL of a server whose owner was killed without a chance to end it."""
    command = [sys.executable, "-c", OWNER, kind.__name__, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        owner.kill()
    return url


def postgres(home: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(home, settings=FAST)


def remember(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def remembers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def postmaster_of(server: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))


def test_a_restart_keeps_the_data(home: Path) -> None:
    with postgres(home) as server:
        remember(server.url)
        first = postmaster_of(server)
    assert not first.is_running()
    with postgres(home) as server:
        assert remembers(server.url)


def test_a_killed_server_recovers(home: Path) -> None:
    server = EmbeddedPostgres(home)  # with fsync on, as only that promises it
    with server:
        remember(server.url)
        server.kill()
        server.start()
        assert remembers(server.url)


def test_the_server_of_a_killed_owner_is_replaced(home: Path) -> None:
    url = started_and_orphaned(EmbeddedPostgres, home)
    remember(url)
    with postgres(home) as server:
        assert remembers(server.url)
        assert server.url == url


def test_a_stale_pid_file_that_names_a_foreign_process_harms_nobody(home: Path) -> None:
    with postgres(home) as server:
        remember(server.url)
    with subprocess.Popen(["sleep", "60"], user=server.data.stat().st_uid if os.geteuid() == 0 else None) as foreign:
        (server.data / "postmaster.pid").write_text(f"{foreign.pid}\n{server.data}\n1\n5432\n{home}\n\n1 1\nready\n")
        with postgres(home) as again:
            assert remembers(again.url)
        assert foreign.poll() is None
        foreign.kill()


def test_a_stale_socket_lock_that_names_a_foreign_process_harms_nobody(home: Path) -> None:
    with postgres(home) as server:
        remember(server.url)
    with subprocess.Popen(["sleep", "60"], user=server.data.stat().st_uid if os.geteuid() == 0 else None) as foreign:
        lock = server.data.with_name(".s.PGSQL.5432.lock")
        lock.write_text(f"{foreign.pid}\n{server.data}\n1\n5432\n{lock.parent}\n")
        lock.chmod(0o600)
        shutil.chown(lock, server.data.stat().st_uid, server.data.stat().st_gid)
        with postgres(home) as again:
            assert remembers(again.url)
        assert foreign.poll() is None
        foreign.kill()


def test_a_pool_finds_a_server_that_was_long_away(home: Path) -> None:
    server = postgres(home)
    with server, pool(server.url, 4, "test") as connections:
        with connections.connection() as connection:
            connection.execute("SELECT 1")
        server.kill()
        away = time.monotonic() + 8
        while time.monotonic() < away:
            with pytest.raises((PoolTimeout, psycopg.OperationalError)), connections.connection() as connection:
                connection.execute("SELECT 1")
        server.start()
        with connections.connection(timeout=3) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_two_homes_live_side_by_side(home: Path) -> None:
    with postgres(home / "one") as one:
        with postgres(home / "two") as two:
            remember(two.url)
            with psycopg.connect(one.url) as connection:
                assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
        assert postmaster_of(one).is_running()


def test_a_home_has_one_owner_and_tells_others_its_url(home: Path) -> None:
    assert EmbeddedPostgres.running_at(home) is None
    with postgres(home) as server:
        with pytest.raises(ServerFailed, match="in use by another process"):
            postgres(home).start()
        assert EmbeddedPostgres.running_at(home) == server.url
    assert EmbeddedPostgres.running_at(home) is None


def test_a_closed_directory_above_stays_closed(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with postgres(closed / "home") as server:
        remember(server.url)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with postgres(closed / "home") as server:
        assert remembers(server.url)
    if os.geteuid() == 0:
        assert not server.data.is_relative_to(home)
        shutil.rmtree(server.data.parent)


def test_a_home_with_a_path_too_long_for_a_socket(home: Path) -> None:
    with postgres(home / ("x" * 60) / ("y" * 60)) as server:
        remember(server.url)
        socket = Path(_host(server.url))
    assert len(str(socket)) < 100
    socket.rmdir()


def test_a_rabbitmq_node_outlives_its_owner_until_the_next_one_comes(home: Path) -> None:
    if not PrivateRabbitmq.installed():
        pytest.fail(NO_RABBITMQ, pytrace=False)
    url = started_and_orphaned(PrivateRabbitmq, home)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare("kept", durable=True)
    with PrivateRabbitmq(home) as node:
        assert node.url == url
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().queue_declare("kept", passive=True)
        ours = _at_home(node.home)
        assert {process.name() for process in ours} >= {"beam.smp", "epmd"}
    assert not _at_home(node.home)


def test_each_test_has_a_virtual_host_of_its_own(amqp_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        assert connection.channel().queue_declare("mine").method.message_count == 0


def test_ctrl_c_reaches_the_owner_only(home: Path) -> None:
    with postgres(home) as server:
        assert os.getpgid(postmaster_of(server).pid) != os.getpgid(0)


def _host(url: str) -> str:
    host = psycopg.conninfo.conninfo_to_dict(url)["host"]
    assert isinstance(host, str)
    return host


def _at_home(home: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["environ", "name"])
    return [process for process in found if (process.info["environ"] or {}).get("HOME") == str(home)]
