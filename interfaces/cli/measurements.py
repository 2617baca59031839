"""Commands about telemetry and meter readings: files out, files in, and what is missing."""

import asyncio
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any
from uuid import UUID

import typer
from psycopg import AsyncConnection

from domain.errors import NotFound
from infra.postgres import async_connect
from infra.settings import Settings
from interfaces.cli import import_progress, progress
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import organization_id, parts
from projections.conflicts import conflicts as conflicts_of
from projections.exports import Export, Span
from projections.formats import encoded
from projections.gaps import gaps as gaps_of
from projections.gaps import parsed_interval, until_now
from projections.imports import BadRow, Import, Imported, Rejected, Rejects, Source
from projections.plants import plants_by_name
from projections.rebuild import Progress

app = typer.Typer(help="Telemetry and meter readings as files, and what is missing.", no_args_is_help=True)


class What(StrEnum):
    telemetry = "telemetry"
    meters = "meters"


class Form(StrEnum):
    csv = "csv"
    parquet = "parquet"


class OnError(StrEnum):
    stop = "stop"
    skip = "skip"


Slug = Annotated[str, typer.Argument(help="The organisation's slug.")]
Start = Annotated[str | None, typer.Option("--from", help="ISO 8601, UTC if it has no offset; 24 h before --to.")]
End = Annotated[str | None, typer.Option("--to", help="The same; now if none is given.")]


@app.command()
def export(
    slug: Slug,
    plant: Annotated[str, typer.Argument(help="The plant's id, or its id at the ESM.")],
    what: Annotated[What, typer.Option(help="Which measurements.")] = What.telemetry,
    start: Start = None,
    end: End = None,
    bucket: Annotated[
        int | None, typer.Option(min=1, max=60, help="Minutes; without it, what was measured as it came.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="Parquet needs the extra `parquet`.")] = Form.csv,
    out: Annotated[Path | None, typer.Option(help="A file, instead of standard output.")] = None,
) -> None:
    """Writes what GET …/telemetry/export or …/meters/export answers, of up to 366 days.

    Example: wattledger measurements export acme esm-001 --from 2026-10-01 --to 2026-11-01 --out october.csv
    """
    span = _span(start, end)
    with parts() as assembly:
        with assembly.connect() as connection:
            found = _plant(plants_by_name(connection, organization_id(connection, slug)), plant)
        with _written(out) as file:
            asked = Export(what.value, found, span, bucket)
            asyncio.run(_export(asked, form, assembly.where.database_url, file))


@app.command(name="import")
def import_(
    slug: Slug,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet, as exported or made by hand.")],
    plant: Annotated[str | None, typer.Option(help="Whose rows are that have no plant_id.")] = None,
    on_error: Annotated[OnError, typer.Option(help="At a row that can't be imported.")] = OnError.stop,
    rejects: Annotated[Path | None, typer.Option(help="Where skipped rows go; FILE.rejects.csv.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="From the first row on, though some are done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Imports measurements as if the plants had sent them: the first value stays, another one is a conflict.

    Columns: time, plant_id (or --plant), and those of the export; for meters time, meter_id and energy_kwh. It may be
    interrupted and started again, and repeated without harm. Exit status 1 if rows were skipped. Example:
    wattledger measurements import acme history.csv --plant esm-001 --on-error skip
    """
    source = Source.of(file)
    what, began = source.what, time.monotonic()
    with parts() as assembly, assembly.connect() as connection:
        plants = plants_by_name(connection, organization_id(connection, slug))
        retention = timedelta(days=Settings().retention_days)
        wanted = Import(source, plants, _plant(plants, plant) if plant else None, retention)
        state = import_progress.State(file)
        imported = Imported() if restart else state.restored()
        if imported.rows:
            typer.echo(f"Goes on after {imported.rows:,} rows; --restart begins anew.", err=True)
        rejected = Rejects(
            rejects or file.with_name(f"{file.name}.rejects.csv"), source.columns, goes_on=imported.rows > 0
        )

        def reject(row: Rejected) -> None:
            if on_error is OnError.stop:
                raise BadRow(f"{file}, line {row.line.number}: {row.reason} (--on-error skip goes on)")
            rejected.add(row)

        try:
            with progress.shown() as shown:
                tell = _telling(what, source.total, imported.rows, shown)

                def keep(done: Imported) -> None:
                    rejected.flush()
                    state.keep(done)
                    tell(done)

                wanted.run(connection, reject, keep, imported)
        finally:
            rejected.close()
        state.forget()
    done = {"rows": imported.rows, **imported.recorded._asdict(), "rejected": imported.rejected}
    if as_json:
        print_json({"what": what, **done, "seconds": round(time.monotonic() - began, 3)})
    else:
        typer.echo(", ".join(f"{count:,} {name}" for name, count in done.items()))
    if imported.rejected:
        raise typer.Exit(1)


@app.command()
def gaps(
    slug: Slug,
    plant: Annotated[str | None, typer.Option(help="Only this one; its id, or its id at the ESM.")] = None,
    start: Start = None,
    end: End = None,
    every: Annotated[
        str | None, typer.Option(help="How often plants send, such as 10s; the usual interval of each if not given.")
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="Also the days on which nothing is missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the days on which samples are missing: expected against received, per plant and UTC day.

    Example: wattledger measurements gaps acme --from 2026-10-01 --every 10s
    """
    step = parsed_interval(every) if every else None
    span = until_now(_span(start, end), datetime.now(UTC))
    found = []
    with parts() as assembly, assembly.connect() as connection, progress.shown() as shown:
        asked = _asked(plants_by_name(connection, organization_id(connection, slug)), plant)
        days, began = len(span.days()), time.monotonic()
        for number, day in enumerate(gaps_of(connection, asked, span, step), 1):
            found += [gap for gap in day if whole or gap.missing]
            _show_rate(shown, "days", number, days, 0, began)
    found.sort(key=lambda gap: (gap.plant, gap.day))
    show([{**dataclasses.asdict(gap), "day": gap.day.isoformat(), "missing": gap.missing} for gap in found], as_json)


@app.command()
def conflicts(
    slug: Slug,
    plant: Annotated[str | None, typer.Option(help="Only this one; its id, or its id at the ESM.")] = None,
    start: Start = None,
    end: End = None,
    as_json: AsJson = False,
) -> None:
    """Lists measurements that came again with another value: which one stands, and what came later.

    Example: wattledger measurements conflicts acme --from 2026-10-01 --to 2026-11-01
    """
    span = _span(start, end)
    with parts() as assembly, assembly.connect() as connection:
        asked = _asked(plants_by_name(connection, organization_id(connection, slug)), plant)
        found = conflicts_of(connection, asked, span)
    show(found, as_json)


async def _export(export: Export, form: Form, database_url: str, file: IO[bytes]) -> None:
    async with await async_connect(database_url, "export") as connection:

        async def ask(question: "Callable[[AsyncConnection[Any]], Any]") -> Any:
            return await question(connection)

        async for piece in encoded(export, form.value, ask):
            file.write(piece)


@contextmanager
def _written(out: Path | None) -> Iterator[IO[bytes]]:
    """A file that is there when it is whole, or standard output."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial_file = out.with_name(f"{out.name}.part")
    try:
        with partial_file.open("wb") as file:
            yield file
        partial_file.replace(out)
    finally:
        partial_file.unlink(missing_ok=True)


def _span(start: str | None, end: str | None) -> Span:
    return Span.of(_moment(start, "--from"), _moment(end, "--to"))


def _moment(text: str | None, name: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        raise ValueError(f"{name}: {text} is no ISO 8601 date and time") from None


def _plant(known: dict[str, UUID], name: str) -> UUID:
    found = known.get(name) or known.get(name.lower())
    if found is None:
        raise NotFound(f"The organisation has no plant {name}")
    return found


def _asked(known: dict[str, UUID], plant: str | None) -> dict[UUID, str]:
    """The plant, or all, each by one of its names."""
    only = _plant(known, plant) if plant else None
    asked: dict[UUID, str] = {}
    for name, plant_id in known.items():
        if only in (None, plant_id):
            asked.setdefault(plant_id, name)
    return asked


def _telling(what: str, total: int, before: int, shown: Callable[[Progress], None]) -> Callable[[Imported], None]:
    began = time.monotonic()
    return lambda imported: _show_rate(shown, what, imported.rows, max(total, imported.rows), before, began)


def _show_rate(shown: Callable[[Progress], None], what: str, done: int, total: int, before: int, began: float) -> None:
    rate = (done - before) / max(time.monotonic() - began, 1e-6)
    shown(Progress(what, done, total, rate, (total - done) / rate if rate else None))
