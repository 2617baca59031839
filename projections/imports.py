"""Measurements from files: read row by row, each problem with its line, recorded as if they had come from the plants.

What was exported can be imported, and files made by hand: the columns in any order, `time` and one value at least."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import UUID

import psycopg

from projections.exports import RAW_COLUMNS, TEXTS, What
from projections.formats import NoParquet, marked, unmarked
from projections.measurements import MAX_VALUE, RETENTION, Recorded, by_days, limits
from projections.meters import MeterReading, record_meters
from projections.samples import Sample, record_telemetry

BATCH = 10_000
MAX_TEXT = {"meter_id": 200, "operating_mode": 255, "data_quality": 255}
# A file of rejects that was mended can be imported as it is.
OF_REJECTS = ("line", "reason")


class BadFile(ValueError):
    """It can't be imported at all"""


class BadRow(ValueError):
    """It can't be imported"""


class Line(NamedTuple):
    """A row of a file with the line that it ends on (CSV) or its number (Parquet)."""

    number: int
    values: Mapping[str, Any]


class Rejected(NamedTuple):
    line: Line
    reason: str


@dataclass
class Imported:
    """How far an import has come: `rows` read, `recorded` of them as ingest counts, and the `rejected`."""

    rows: int = 0
    recorded: Recorded = field(default_factory=Recorded)
    rejected: int = 0


@dataclass(frozen=True)
class Source:
    """A file of measurements. `total` counts its rows, or for CSV its lines."""

    path: Path
    columns: Sequence[str]
    total: int
    lines: Callable[[], Iterator[Line]]

    @classmethod
    def of(cls, path: Path) -> "Source":
        """CSV, by commas or semicolons, or Parquet; raises BadFile and NoParquet."""
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return _parquet(path) if is_parquet else _csv(path)

    @property
    def what(self) -> What:
        """By its columns; raises BadFile with what is wrong with them."""
        named = [name for name in self.columns if name]
        what: What = "meters" if {"meter_id", "energy_kwh"} & set(named) else "telemetry"
        known = RAW_COLUMNS[what]
        if unknown := sorted(set(named) - {*known, *OF_REJECTS}):
            raise BadFile(f"{self.path}: no such column {', '.join(unknown)}; {what} has {', '.join(known)}")
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise BadFile(f"{self.path}: more than one column {', '.join(twice)}")
        needed = {"time"} if what == "telemetry" else {"time", "meter_id", "energy_kwh"}
        if missing := sorted(needed - set(named)):
            raise BadFile(f"{self.path}: no column {', '.join(missing)} in the header")
        return what


@dataclass(frozen=True)
class Import:
    """`plants` are those that may have measurements, by their ids and by the ESM's; `plant_id` is whose rows are that
    don't say."""

    source: Source
    plants: Mapping[str, UUID]
    plant_id: UUID | None = None
    retention: timedelta = RETENTION

    def run(
        self,
        connection: "psycopg.Connection[Any]",
        reject: Callable[[Rejected], None],
        progress: Callable[[Imported], None],
        imported: Imported,
    ) -> None:
        """Goes on after what is `imported`, a batch a transaction, and tells `progress` after each. `reject` gets what
        can't be recorded, and may raise: then nothing of that batch is."""
        what = self.source.what
        lines = islice(self.source.lines(), imported.rows, None)
        while batch := list(islice(lines, BATCH)):
            earliest, latest = limits(None, self.retention)
            good, bad = [], 0
            for line in batch:
                try:
                    good.append(self._measured(what, line.values, earliest, latest))
                except BadRow as error:
                    bad += 1
                    reject(Rejected(line, str(error)))
            record = record_telemetry if what == "telemetry" else record_meters
            done = [record(connection, part, retention=self.retention) for part in by_days(good)]  # type: ignore[arg-type]
            imported.recorded = Recorded(*map(sum, zip(imported.recorded, *done, strict=True)))
            imported.rows += len(batch)
            imported.rejected += bad
            progress(imported)

    def _measured(
        self, what: What, values: Mapping[str, Any], earliest: datetime, latest: datetime
    ) -> Sample | MeterReading:
        time = _time(values.get("time"))
        if not earliest <= time <= latest:
            raise BadRow(f"time: {time.isoformat()} is {'in the future' if time > latest else 'before the retention'}")
        plant_id = self._plant(values.get("plant_id"))
        cells = {name: _cell(name, values.get(name)) for name in RAW_COLUMNS[what] if name not in ("plant_id", "time")}
        if what == "telemetry":
            return Sample(plant_id, time, **cells)
        if not cells["meter_id"] or cells["energy_kwh"] is None or cells["energy_kwh"] < 0:
            raise BadRow("a reading needs a meter_id and an energy_kwh of 0 or more")
        return MeterReading(plant_id, time=time, **cells)

    def _plant(self, given: object) -> UUID:
        if given in (None, ""):
            if self.plant_id is None:
                raise BadRow("plant_id: is missing")
            return self.plant_id
        found = self.plants.get(str(given).strip()) or self.plants.get(str(given).strip().lower())
        if found is None:
            raise BadRow(f"plant_id: the organisation has no plant {given!s:.100}")
        return found


def _time(given: object) -> datetime:
    try:
        time = given if isinstance(given, datetime) else datetime.fromisoformat(str(given).strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRow(f"time: {given!s:.50} is no ISO 8601 date and time") from None


def _cell(name: str, given: object) -> Any:
    if given is None or (given == "" and name not in TEXTS):
        return None
    if name in TEXTS:
        if len(text := str(given)) > MAX_TEXT[name] or "\0" in text:
            raise BadRow(f"{name}: is longer than {MAX_TEXT[name]} characters, or holds a NUL")
        return text
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadRow(f"{name}: {given!s:.50} is no number") from None
    if not math.isfinite(value) or abs(value) > MAX_VALUE:
        raise BadRow(f"{name}: {given!s:.50} is out of range")
    return value


def _csv(path: Path) -> Source:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except UnicodeDecodeError:
        raise BadFile(f"{path}: is neither UTF-8 text nor Parquet") from None
    delimiter = ";" if header.count(";") > header.count(",") else ","
    columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    with path.open("rb") as file:
        total = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b"")) - 1
    return Source(path, columns, max(0, total), lambda: _csv_lines(path, delimiter, columns))


def _csv_lines(path: Path, delimiter: str, columns: Sequence[str]) -> Iterator[Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader, None)
        try:
            for row in reader:
                if not row:
                    continue
                values: dict[str, str | None] = dict(zip(columns, row, strict=False))
                if len(row) != len(columns):
                    values["time"] = f"a row of {len(row)} cells under {len(columns)} columns"
                for name in MAX_TEXT.keys() & values.keys():
                    cell = values[name]
                    values[name] = unmarked(cell) if cell else None
                yield Line(reader.line_num, values)
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadFile(f"{path}, after line {reader.line_num}: {error}") from None


def _written(name: str, value: object) -> object:
    return marked(value) if name in MAX_TEXT and isinstance(value, str) else value


def _parquet(path: Path) -> Source:
    try:
        from pyarrow import ArrowInvalid, parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise NoParquet from None
    try:
        file = parquet.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise BadFile(f"{path}: {error}") from None
    names = [name.lower() for name in file.schema_arrow.names]

    def lines() -> Iterator[Line]:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(BATCH):
            columns = [column.to_pylist() for column in batch.columns]
            for number, row in enumerate(zip(*columns, strict=True), number + 1):  # noqa: B020 - it goes on
                yield Line(number, dict(zip(names, row, strict=True)))

    return Source(path, names, file.metadata.num_rows, lines)


class Rejects:
    """The rows that could not be imported, as CSV with their lines and reasons; the file is made for the first."""

    def __init__(self, path: Path, columns: Sequence[str], *, goes_on: bool):
        self._path = path
        self._columns = [name for name in columns if name not in OF_REJECTS]
        self._mode = "a" if goes_on else "w"
        self._file: IO[str] | None = None

    def add(self, rejected: Rejected) -> None:
        if self._file is None:
            begins = self._mode == "w" or not self._path.exists()
            self._file = self._path.open(self._mode, encoding="utf-8", newline="")
            if begins:
                csv.writer(self._file).writerow([*OF_REJECTS, *self._columns])
        values = [_written(name, rejected.line.values.get(name)) for name in self._columns]
        csv.writer(self._file).writerow([rejected.line.number, rejected.reason, *values])

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
