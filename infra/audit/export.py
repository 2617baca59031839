"""Writes a bundle that a third party verifies with a script of its own: in constant memory, while appends go on."""

import ast
import dataclasses
import json
import shutil
import zipfile
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Self
from uuid import UUID

import orjson
from psycopg import Connection
from psycopg.sql import SQL, Literal

from infra.audit.sealing_keys import SealingKey, SealingKeys, sealing_keys
from infra.audit.seals import COLUMNS, Seal, copied, framed, last_seal, seals_after, split
from infra.event_catalogue import catalogue
from projections.rebuild import Progress

PAGE = 50_000
EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Selection:
    """Whose events, and those recorded in [since, until); None is all."""

    organization_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def whole(self) -> bool:
        return self == Selection()


@dataclass(frozen=True)
class Exported:
    path: str
    events: int
    seals: int
    anchor: str | None


def export(
    connection: "Connection[Any]",
    keys: SealingKeys,
    to: Path,
    selection: Selection,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Exported:
    """A directory, or a zip file when `to` ends so; up to the last seal. Raises ValueError when it is there already, or
    nothing is sealed."""
    end = last_seal(connection)
    if to.exists():
        raise ValueError(f"{to} is there already")
    if end is None:
        raise ValueError("Nothing is sealed yet: a worker does it")
    first, last = _positions(connection, selection, end.last_position)
    part = to.with_name(f"{to.name}.part")
    with _Bundle(part, zipped=to.suffix == ".zip") as bundle:
        work = _Export(connection, bundle, selection, first, last, progress)
        events = work.write_events()
        seals, anchor = work.write_seals(end)
        bundle.write("keys.json", [_key(key) for key in sealing_keys(connection)])
        bundle.write("catalogue.json", [dataclasses.asdict(each) for each in catalogue()])
        script = files("infra.audit").joinpath("verify_bundle.py").read_text(encoding="utf-8")
        bundle.write("verify.py", script.encode())
        bundle.write("README.md", (ast.get_docstring(ast.parse(script)) or "").encode())
        manifest = {
            "format": "wattledger bundle 1",
            "whole": selection.whole,
            "organizationId": str(selection.organization_id) if selection.organization_id else None,
            "from": selection.since,
            "to": selection.until,
            "exportedAt": datetime.now(UTC),
            "events": events,
            "seals": seals,
            "anchor": anchor,
            "files": dict(bundle.hashes),
        }
        text = bundle.write("manifest.json", manifest)
        signer = keys.signer(connection)
        signature = signer.sign(framed(b"wattledger bundle 1", text))
        bundle.write("manifest.sig", {"key": signer.key.fingerprint.hex(), "signature": signature.hex()})
    part.rename(to)
    return Exported(str(to), events, seals, anchor)


class _Bundle:
    """The files, hashed as they are written. What is not finished is removed."""

    def __init__(self, path: Path, *, zipped: bool):
        self.hashes: dict[str, str] = {}
        self._path = path
        self._zip = zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) if zipped else None
        if not zipped:
            path.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()
        if kind is not None:
            shutil.rmtree(self._path) if self._zip is None else self._path.unlink()

    @contextmanager
    def lines(self, name: str) -> Iterator[Callable[[Any], None]]:
        """Writes values as lines of JSON."""
        digest = sha256()
        with self._open(name) as file:

            def write(value: Any) -> None:
                line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                digest.update(line)
                file.write(line)

            yield write
        self.hashes[name] = digest.hexdigest()

    def write(self, name: str, content: Any) -> bytes:
        text = content if isinstance(content, bytes) else orjson.dumps(content, option=orjson.OPT_INDENT_2)
        with self._open(name) as file:
            file.write(text)
        self.hashes[name] = sha256(text).hexdigest()
        return text

    def _open(self, name: str) -> IO[bytes]:
        if self._zip is not None:
            return self._zip.open(name, "w", force_zip64=True)
        return (self._path / name).open("xb")


class _Export:
    def __init__(
        self,
        connection: "Connection[Any]",
        bundle: _Bundle,
        selection: Selection,
        first: int,
        last: int,
        progress: Callable[[Progress], None],
    ):
        self._connection = connection
        self._bundle = bundle
        self._owner = selection.organization_id
        self._first, self._last = first, last
        self._progress = progress

    def write_events(self) -> int:
        if self._owner is not None:
            self._find_streams(self._owner)
        whose = SQL(
            "true" if self._owner is None else "(stream_id IN (TABLE own_streams) OR topic LIKE 'queue-prefix:%')"
        )
        count = 0
        with self._bundle.lines("events.ndjson") as write:
            for row in self._rows(COLUMNS, whose, self._first, "export"):
                columns = split(row)
                if self._owner is None or _shown(columns, self._owner):
                    write(_event(columns))
                    count += 1
        return count

    def write_seals(self, end: Seal) -> tuple[int, str | None]:
        """Those over the exported positions; how many and the name of the last one."""
        row = self._connection.execute(
            "SELECT coalesce(min(number), 1) FROM seals WHERE last_position >= %s", [self._first]
        ).fetchone()
        number, count, anchor = (row[0] if row else 1) - 1, 0, None
        with self._bundle.lines("seals.ndjson") as write:
            while number < end.number:
                seal = seals_after(self._connection, number, 1)[0]
                if seal.first_position > self._last:
                    break
                write(_seal(seal))
                number, count, anchor = seal.number, count + 1, seal.name
        return count, anchor

    def _find_streams(self, owner: UUID) -> None:
        """A stream is whose its first event says. Kept in the database, since there may be millions."""
        self._connection.execute("CREATE TEMP TABLE own_streams (stream_id uuid PRIMARY KEY)")
        page: list[tuple[UUID]] = []

        def flush() -> None:
            self._connection.cursor().executemany("INSERT INTO own_streams VALUES (%s) ON CONFLICT DO NOTHING", page)
            page.clear()

        for row in self._rows(SQL("stream_id, topic, state"), SQL("version = 1"), 1, "find"):
            stream_id, topic, state = split(row)
            own = stream_id == owner.bytes if topic == b"organisation:created" else _names(state, owner)
            if own and not (topic or b"").startswith(b"queue-prefix:"):
                page.append((UUID(bytes=stream_id),))
        flush()
        self._connection.execute("ANALYZE own_streams")

    def _rows(self, columns: SQL, where: SQL, first: int, phase: str) -> Iterator[memoryview]:
        """Page by page, so that no statement takes long."""
        query = SQL("SELECT {} FROM events WHERE position > {} AND position <= {} AND {} ORDER BY position")
        for after in range(first - 1, self._last, PAGE):
            upto = min(after + PAGE, self._last)
            yield from copied(self._connection, query.format(columns, Literal(after), Literal(upto), where))
            self._progress(Progress(phase, upto - first + 1, self._last - first + 1))


def _positions(connection: "Connection[Any]", selection: Selection, end: int) -> tuple[int, int]:
    """The first and last position of a time; times never fall as positions rise, so a few looks find them."""

    def recorded_at(position: int) -> datetime:
        row = connection.execute(
            "SELECT recorded_at FROM events WHERE position <= %s ORDER BY position DESC LIMIT 1", [position]
        ).fetchone()
        return row[0] if row else EPOCH_2000

    def before(time: datetime) -> int:
        return bisect_left(range(1, end + 1), time, key=recorded_at)

    first = before(selection.since) + 1 if selection.since else 1
    return first, before(selection.until) if selection.until else end


def _shown(columns: Sequence[bytes | None], owner: UUID) -> bool:
    """A queue prefix may pass from one organisation to another, so of its events only those that name the owner."""
    return not (columns[3] or b"").startswith(b"queue-prefix:") or _names(columns[4], owner)


def _names(state: bytes | None, owner: UUID) -> bool:
    try:
        read = orjson.loads(state or b"")
    except orjson.JSONDecodeError:
        return False
    return isinstance(read, dict) and read.get("organization_id") in {str(owner), owner.hex}


def _event(columns: Sequence[bytes | None]) -> dict[str, Any]:
    """A column that somebody emptied is null, which no sealed event has."""
    position, stream_id, version, topic, state, event_id, metadata, recorded_at = columns
    return {
        "position": _integer(position),
        "streamId": stream_id and str(UUID(bytes=stream_id)),
        "version": _integer(version),
        "topic": topic and topic.decode(),
        **_state(state),
        "eventId": event_id and str(UUID(bytes=event_id)),
        "metadata": metadata and metadata[1:].decode(),
        "recordedAt": _time(_integer(recorded_at)),
    }


def _state(state: bytes | None) -> dict[str, str | None]:
    """The exact bytes: as text where they are some."""
    try:
        return {"state": None if state is None else state.decode()}
    except UnicodeDecodeError:
        return {"stateBase64": b64encode(state or b"").decode()}


def _integer(data: bytes | None) -> int | None:
    return None if data is None else int.from_bytes(data, signed=True)


def _time(microseconds: int | None) -> str | None:
    try:
        time = EPOCH_2000 + timedelta(microseconds=microseconds or 0)
    except OverflowError:
        return None
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _seal(seal: Seal) -> dict[str, Any]:
    return {
        "number": seal.number,
        "firstPosition": seal.first_position,
        "lastPosition": seal.last_position,
        "previous": seal.previous.hex(),
        "leaves": seal.leaves.hex(),
        "sealedAt": seal.sealed_at,
        "key": seal.key.hex(),
        "digest": seal.digest.hex(),
        "signature": seal.signature.hex(),
    }


def _key(key: SealingKey) -> dict[str, Any]:
    signed = {"publicKey": key.public_key.hex(), "madeAt": key.made_at}
    return {"number": key.number, "endorsement": key.endorsement.hex(), **signed}
