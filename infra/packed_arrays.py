"""Columns as PostgreSQL's binary arrays, packed whole: several times cheaper than dumping them value by value.

Source: `array_send` of PostgreSQL (dimensions, null flag, element type, length, lower bound, then each value behind its
length) and the send functions of the types.
"""

from collections.abc import Sequence
from struct import pack
from typing import ClassVar
from uuid import UUID

from psycopg import adapters
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

JSONB_VERSION = b"\x01"


class PackedArray(bytes):
    """Goes to the server as it is, under its class's type."""

    element: ClassVar[str]

    def __init_subclass__(cls) -> None:
        adapters.register_dumper(cls, _AsItIs)


class _AsItIs(Dumper):
    format = Format.BINARY

    def __init__(self, cls: type[PackedArray], context: AdaptContext | None = None):
        # Not known to the class: registered with a type's oid, it would serve lists that are copied to that type.
        super().__init__(cls, context)
        self.oid = adapters.types[cls.element].array_oid

    def dump(self, obj: PackedArray) -> Buffer:
        return obj


class _Uuids(PackedArray):
    element = "uuid"


class _Bigints(PackedArray):
    element = "int8"


class _Texts(PackedArray):
    element = "text"


class _Byteas(PackedArray):
    element = "bytea"


class _Jsonbs(PackedArray):
    element = "jsonb"


def uuids(values: Sequence[UUID]) -> PackedArray:
    length = pack(">i", 16)
    return _packed(_Uuids, len(values), b"".join([length + value.bytes for value in values]))


def bigints(values: Sequence[int]) -> PackedArray:
    pairs = [number for value in values for number in (8, value)]
    return _packed(_Bigints, len(values), pack(">" + "iq" * len(values), *pairs))


def texts(values: Sequence[str]) -> PackedArray:
    return _packed(_Texts, len(values), _behind_lengths([value.encode() for value in values]))


def byteas(values: Sequence[bytes]) -> PackedArray:
    return _packed(_Byteas, len(values), _behind_lengths(values))


def jsonbs(documents: Sequence[bytes]) -> PackedArray:
    return _packed(_Jsonbs, len(documents), _behind_lengths([JSONB_VERSION + document for document in documents]))


def _behind_lengths(values: Sequence[bytes]) -> bytes:
    return b"".join([pack(">i", len(value)) + value for value in values])


def _packed(kind: type[PackedArray], count: int, values: bytes) -> PackedArray:
    element = adapters.types[kind.element].oid
    dimensions = (1, 0, element, count, 1) if count else (0, 0, element)
    return kind(pack(f">{len(dimensions)}I", *dimensions) + values)
