"""Measurements as CSV and Parquet, encoded a page at a time."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC
from typing import Any, Literal, Protocol

from domain.errors import BadRequest
from projections.exports import TEXTS, Ask, Export, Row

Format = Literal["csv", "parquet"]
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

# What makes a spreadsheet take a cell for a formula, and the mark that we put before it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


class NoParquet(BadRequest):
    """Parquet needs pyarrow on the server: pip install "wattledger[parquet]" """

    reason = "PARQUET_NOT_INSTALLED"


class Encoder(Protocol):
    """`rows` is how many make a good page; what `add` and `end` answer, one after the other, is the file."""

    rows: int

    def add(self, page: Sequence[Row]) -> bytes: ...

    def end(self) -> bytes: ...


async def encoded(export: Export, form: Format, ask: Ask) -> AsyncGenerator[bytes, None]:
    """The file in pieces. Raises NoParquet before the first."""
    encoder = CsvEncoder(export.columns) if form == "csv" else ParquetEncoder(export.columns)
    async for page in export.pages(ask, encoder.rows):
        # In a thread: a page takes some 30 ms, in which the event loop has others to serve.
        yield await asyncio.to_thread(encoder.add, page)
    yield encoder.end()


def marked(text: str) -> str:
    """A text that no spreadsheet computes, and that an empty cell is not mistaken for; `unmarked` is its inverse."""
    return f"'{text}" if not text or text.startswith(FORMULA) else text


def unmarked(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and (len(cell) == 1 or cell[1:].startswith(FORMULA)) else cell


class CsvEncoder:
    """RFC 4180 with a header; times are RFC 3339 UTC to the microsecond, null is empty, texts are `marked`."""

    rows = 10_000

    def __init__(self, columns: Sequence[str]):
        self._header: Sequence[str] = columns
        self._time = columns.index("time")
        self._texts = [place for place, name in enumerate(columns) if name in TEXTS - {"plant_id", "interval"}]

    def add(self, page: Sequence[Row]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if self._header:
            writer.writerow(self._header)
            self._header = ()
        writer.writerows(map(self._cells, page))
        return text.getvalue().encode()

    def end(self) -> bytes:
        return self.add(())

    def _cells(self, row: Row) -> list[Any]:
        cells = list(row)
        cells[self._time] = f"{row[self._time].isoformat()}Z"
        for place in self._texts:
            if cells[place] is not None:
                cells[place] = marked(cells[place])
        return cells


class ParquetEncoder:
    """A row group a page: times are timestamps of microseconds in UTC, ids strings, the rest doubles."""

    rows = 50_000

    def __init__(self, columns: Sequence[str]):
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise NoParquet from None
        time, text, number = pa.timestamp("us", tz="UTC"), pa.string(), pa.float64()
        kinds = {"time": time, **dict.fromkeys(TEXTS, text)}
        self._arrow = pa
        self._schema = pa.schema([(name, kinds.get(name, number)) for name in columns])
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")

    def add(self, page: Sequence[Row]) -> bytes:
        columns = [
            self._arrow.array(self._values(field.name, values), field.type)
            for field, values in zip(self._schema, zip(*page, strict=True), strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=len(page))
        return self._sink.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.taken()

    def _values(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        if name == "plant_id":
            return list(map(str, values))
        return [each.replace(tzinfo=UTC) for each in values] if name == "time" else values


class _Sink(io.RawIOBase):
    """A file that is only ever appended to, and whose content is taken away as it grows."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        self._pieces.append(bytes(piece))
        self._length += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        return self._length

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
