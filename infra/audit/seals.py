"""What a seal is: the exact bytes that are hashed and signed, and how rows of the log and of the seals are read."""

import struct
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import chain
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composable, Literal

LEAF_BYTES = 32
GENESIS = bytes(32)
"""What the first seal has for the digest of the one before it."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PGCOPY_HEADER_BYTES = 19

COLUMNS = SQL("position, stream_id, version, topic, state, event_id, metadata, recorded_at")
_SEAL = (
    "SELECT number, first_position, last_position, previous, leaves,"
    " CASE WHEN isfinite(sealed_at) THEN (extract(epoch FROM sealed_at) * 1000000)::bigint END AS sealed_at,"
    " key, digest, signature FROM seals"
)


@dataclass(frozen=True)
class Seal:
    """`sealed_at` is in microseconds since 1970, UTC; `key` is the fingerprint of the public key."""

    number: int
    first_position: int
    last_position: int
    previous: bytes
    leaves: bytes
    sealed_at: int
    key: bytes
    digest: bytes = b""
    signature: bytes = b""

    def compute_digest(self) -> bytes:
        numbers = (self.number, self.first_position, self.last_position, self.sealed_at)
        return sha256(
            framed(b"wattledger seal 1", *(int8(each) for each in numbers), self.previous, self.key, self.leaves)
        ).digest()

    @property
    def name(self) -> str:
        """What an auditor keeps, to know later that this seal and all before it are still the same."""
        return f"{self.digest.hex()}@{self.number}"


def framed(*parts: bytes) -> bytes:
    """Each part after its length (4 bytes, big-endian), so that no two lists of parts give the same bytes."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def int8(number: int) -> bytes:
    return struct.pack(">q", number)


def leaf(row: bytes | memoryview) -> bytes:
    """Of an event: the SHA-256 of its row as PostgreSQL's binary COPY writes it.

    That is the count of columns (2 bytes), then each column in the order of COLUMNS: its length (4 bytes), its bytes.
    Whole numbers have 8 bytes, UUIDs 16, text is UTF-8, metadata is 0x01 and then the text that PostgreSQL prints for
    it, and `recorded_at` is the microseconds since 2000-01-01T00:00:00Z (8 bytes). All big-endian.
    """
    return sha256(row).digest()


def raw_events(
    connection: "Connection[Any]", after: int, last: int, columns: SQL = COLUMNS
) -> Generator[memoryview, None, None]:
    """The rows after a position up to another, in order, as binary COPY writes them."""
    query = SQL("SELECT {} FROM events WHERE position > {} AND position <= {} ORDER BY position")
    return copied(connection, query.format(columns, Literal(after), Literal(last)))


def copied(connection: "Connection[Any]", query: Composable) -> Generator[memoryview, None, None]:
    """The rows of any query; to be closed when they are not read to the end."""
    connection.execute("SET client_encoding TO 'UTF8'")  # it is part of what is hashed
    with connection.cursor().copy(SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)) as copy:
        rows: Iterator[Any] = iter(copy)
        for row in chain([memoryview(next(rows))[PGCOPY_HEADER_BYTES:]], rows):
            if len(row) > 2:  # the end is marked by a count of -1 columns
                yield row


def split(row: bytes | memoryview) -> list[bytes | None]:
    """The columns of such a row."""
    columns: list[bytes | None] = []
    place = 2
    while place < len(row):
        (length,) = struct.unpack_from(">i", row, place)
        place += 4
        columns.append(None if length < 0 else bytes(row[place : place + length]))
        place += max(length, 0)
    return columns


def position_of(row: bytes | memoryview) -> int:
    return int.from_bytes(row[6:14], signed=True)


def moved(row: bytes | memoryview, position: int) -> bytes:
    """The row as it would be at another position."""
    return bytes(row[:6]) + int8(position) + bytes(row[14:])


def last_seal(connection: "Connection[Any]") -> Seal | None:
    found = _seals(connection, " ORDER BY number DESC LIMIT 1")
    return found[0] if found else None


def seals_after(connection: "Connection[Any]", number: int, limit: int) -> list[Seal]:
    """In order."""
    return _seals(connection, " WHERE number > %s ORDER BY number LIMIT %s", number, limit)


def _seals(connection: "Connection[Any]", which: str, *parameters: int) -> list[Seal]:
    with connection.cursor(row_factory=class_row(Seal), binary=True) as cursor:
        return cursor.execute(_SEAL.encode() + which.encode(), parameters).fetchall()


def add(connection: "Connection[Any]", seal: Seal) -> None:
    row = asdict(seal) | {"sealed_at": EPOCH + timedelta(microseconds=seal.sealed_at)}
    names = [field.name for field in fields(Seal)]
    values = ", ".join(f"%({name})s" for name in names)
    connection.execute(f"INSERT INTO seals ({', '.join(names)}) VALUES ({values})".encode(), row, binary=True)
