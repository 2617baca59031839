"""The servers that tests share: one PostgreSQL and one RabbitMQ a session, a database or a virtual host a test."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
from psycopg.sql import SQL, Identifier

from infra.embedded import EmbeddedPostgres, PrivateRabbitmq

# A lost power supply has no place in a test run, so nothing waits for the disk.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TEMPLATE = "wattledger_template"


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A directory that PostgreSQL's user may enter also when root runs the tests; pytest's own is closed to others."""
    memory = Path("/dev/shm")
    # A database is copied in 10 ms there, where a disk took 250; containers often have only 64 MB of it.
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    home = Path(tempfile.mkdtemp(prefix="wattledger-test-", dir=memory if roomy else None))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextmanager
def rabbitmq_node() -> Iterator[PrivateRabbitmq]:
    """A node of the caller's own, which it may kill and start again."""
    with temporary_home() as home:
        node = PrivateRabbitmq(home, plugins=["rabbitmq_management"])
        node.start()
        try:
            yield node
        finally:
            node.kill()  # its data goes with the home, so nothing is gained by a slower end


@contextmanager
def database(server: EmbeddedPostgres, template: str = "template1") -> Iterator[str]:
    """The URL of a new database, copied from another and dropped with whoever is still connected."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        # Copying files beats writing the copy to the log by far where nothing waits for the disk.
        statement = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        connection.execute(statement.format(Identifier(name), Identifier(template)))
    try:
        yield server.url_of(name)
    finally:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def make_template(server: EmbeddedPostgres) -> str:
    """Migrates a database once, for every test to copy."""
    from projections.schema import migrate

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(TEMPLATE)))
    with psycopg.connect(server.url_of(TEMPLATE)) as connection:
        migrate(connection)
    return TEMPLATE


@contextmanager
def virtual_host(server: PrivateRabbitmq) -> Iterator[str]:
    """The AMQP URL of a new virtual host; over HTTP in milliseconds, where rabbitmqctl would boot Erlang each time."""
    name = f"test-{uuid4().hex}"
    # Nothing is kept open, since a test may restart the node.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=server.management_url, auth=("guest", "guest"), limits=limits, timeout=30) as management:
        management.put(f"/api/vhosts/{name}").raise_for_status()
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put(f"/api/permissions/{name}/guest", json=everything).raise_for_status()
        try:
            yield server.url_of(name)
        finally:
            management.delete(f"/api/vhosts/{name}").raise_for_status()
