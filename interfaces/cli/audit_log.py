"""Commands for auditors: what happened, what was so at a moment, what changed, and what caused what."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from psycopg import Connection

from application.context import with_user
from application.ports import VEILED, Veil
from domain.errors import Invalid, NotFound
from infra.bootstrap import Parts
from interfaces.cli.audit import app
from interfaces.cli.output import AsJson, json_line
from interfaces.cli.session import organization_id, parts, reading
from projections.audit_log import AuditEntry, AuditFilter, audit_page, readable
from projections.history import Change, changes, version_at
from projections.story import Step, story

__all__ = ["app"]

PAGE = 500
LOOK_S = 0.5

Stream = Annotated[UUID, typer.Argument(help="A stream's id, as `audit log` prints it: a plant's, command's …")]
Moment = Annotated[str | None, typer.Option(metavar="TIME", help="ISO 8601; UTC if it names no zone.")]
Organisation = Annotated[str | None, typer.Option("--organisation", "--org", help="An organisation's slug.")]


@app.command()
def log(
    organisation: Organisation = None,
    plant: Annotated[UUID | None, typer.Option(help="A plant's id.")] = None,
    kind: Annotated[str | None, typer.Option(help="An event's topic, or an aggregate's: plant, plant:linked.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who: user:…, key:…, partner:…, plant:…, cli:…, scheduler.")] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Recorded at or after.")] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Recorded at or before.")] = None,
    id: Annotated[str | None, typer.Option(help="A request's, correlation's or message's id.")] = None,  # noqa: A002
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 is all.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is recorded from now on.")] = False,
    as_json: AsJson = False,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="A line of JSON an event.")] = False,
) -> None:
    """Lists events, newest first; with --follow oldest first. Example: wattledger audit log --org acme --kind plant"""
    if follow and as_json:
        raise Invalid("An array has no end while we follow: use --ndjson")
    with parts() as assembly, assembly.connect() as connection:
        owner = organization_id(connection, organisation) if organisation else None
        read = reading(assembly)

        def say(entry: AuditEntry) -> None:
            typer.echo(json_line(read(entry)) if ndjson else _line(read(entry)))

        wanted = AuditFilter(
            organization_id=owner,
            plant_id=plant,
            topic=kind,
            actor=_veiled(assembly, owner, actor),
            id=id,
            since=moment(from_),
            until=moment(to),
        )
        if follow:
            _follow(connection, wanted, limit, say)
        elif as_json:
            _print_array(map(read, _newest_first(connection, wanted, limit)))
        else:
            for entry in _newest_first(connection, wanted, limit):
                say(entry)


@app.command()
def show(
    stream: Stream,
    at: Moment = None,
    version: Annotated[int | None, typer.Option(min=1, help="As it was at this version.")] = None,
    as_json: AsJson = False,
) -> None:
    """Shows what a stream amounts to, now or then. Example: wattledger audit show 0b5e… --at 2026-11-01T12:00"""
    if at is not None and version is not None:
        raise Invalid("Give a time or a version, not both")
    with parts() as assembly, assembly.connect() as connection:
        found = version_at(connection, assembly.decode, stream, moment(at), version)
        if found is None:
            raise NotFound(f"There is no stream {stream}, or it had not begun then")
        unveil = _unveil(assembly, connection, stream)
        found = replace(found, actor=with_user(found.actor, unveil), state=readable(found.state, unveil))
    if as_json:
        typer.echo(json_line(found))
        return
    typer.echo(f"{found.kind} {stream}, version {found.version}, as of {_time(found.recorded_at)} (by {found.actor})")
    for name, value in found.state.items():
        typer.echo(f"  {name}: {json_line(value)}")


@app.command()
def diff(
    stream: Stream,
    from_: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Changes after; all if none.")] = None,
    to: Annotated[str | None, typer.Option(metavar="TIME", help="Changes up to; now if none is given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists what changed in a stream, field by field, and by whom.

    Example: wattledger audit diff 0b5e… --from 2026-11-01
    """
    with parts() as assembly, assembly.connect() as connection:
        unveil = _unveil(assembly, connection, stream)
        found = (
            replace(change, actor=with_user(change.actor, unveil), fields=readable(change.fields, unveil))
            for change in changes(connection, assembly.decode, stream, moment(from_), moment(to))
        )
        if as_json:
            _print_array(found)
            return
        for change in found:
            typer.echo(_told(change))


@app.command()
def trace(
    id: Annotated[str, typer.Argument(help="A request's, correlation's or message's id.")],  # noqa: A002
    as_json: AsJson = False,
) -> None:
    """Shows cause and effect as a tree: call → events → messages → acknowledgements.

    Example: wattledger audit trace 5f0c…
    """
    with parts() as assembly, assembly.connect() as connection:
        steps = story(connection, assembly.decode, assembly.publisher.sent, id, reading(assembly))
    if not steps:
        raise NotFound(f"Nothing in the log has the id {id}")
    if as_json:
        typer.echo(json_line(steps))
        return
    for step in steps:
        _print_tree(step)


def moment(given: str | None) -> datetime | None:
    """Raises Invalid."""
    if given is None:
        return None
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError:
        raise Invalid(f"{given} is no time: write it as 2026-11-01T12:00:00Z") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _veiled(assembly: Parts, owner: UUID | None, actor: str | None) -> str | None:
    """As the log has it."""
    if actor is None or not actor.startswith("user:") or VEILED in actor:
        return actor
    if owner is None:
        raise Invalid("Name the organisation, too: each veils its users' ids with a key of its own")
    return with_user(actor, assembly.trading.secrets.veil(owner))


def _unveil(assembly: Parts, connection: "Connection[Any]", stream: UUID) -> Veil:
    row = connection.execute(
        "SELECT organization_id FROM audit_events WHERE stream_id = %s ORDER BY version DESC LIMIT 1", [stream]
    ).fetchone()
    return assembly.trading.secrets.unveil(row[0]) if row else str


def _newest_first(connection: "Connection[Any]", wanted: AuditFilter, limit: int) -> Iterator[AuditEntry]:
    """A page at a time, so that a log of any length takes no more memory."""
    left = limit or None
    before = wanted.before
    while left is None or left > 0:
        page = audit_page(connection, AuditFilter(**{**vars(wanted), "before": before}), min(left or PAGE, PAGE))
        yield from page.data
        left = None if left is None else left - len(page.data)
        before = page.meta.next
        if before is None:
            return


def _follow(connection: "Connection[Any]", wanted: AuditFilter, limit: int, say: Callable[[AuditEntry], None]) -> None:
    """Until Ctrl-C. By the log's end, not by the last one shown: what does not match is not looked at twice."""
    newest = list(_newest_first(connection, wanted, limit or PAGE))
    after = newest[0].position if newest else 0
    pending = newest[::-1]
    while True:
        for entry in pending:
            say(entry)
            after = entry.position
        pending = audit_page(connection, AuditFilter(**{**vars(wanted), "after": after}), PAGE, oldest_first=True).data
        if not pending:
            time.sleep(LOOK_S)


def _print_array(rows: Iterable[Any]) -> None:
    separator = "["
    for row in rows:
        typer.echo(f"{separator}{json_line(row)}", nl=False)
        separator = ",\n "
    typer.echo("]" if separator != "[" else "[]")


def _line(entry: AuditEntry) -> str:
    said = json_line(entry.state)
    said = said if len(said) <= 120 else f"{said[:119]}…"
    return (
        f"{entry.position:>9}  {_time(entry.recorded_at)}  {entry.topic:<32}  {entry.stream_id}  {entry.version:>4}"
        f"  {entry.actor:<28}  {said}"
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(change: Change) -> str:
    fields = "; ".join(f"{name}: {json_line(old)} → {json_line(new)}" for name, (old, new) in change.fields.items())
    return f"{change.version:>4}  {_time(change.recorded_at)}  {change.topic}  by {change.actor}: {fields or 'nothing'}"


def _print_tree(step: Step, before: str = "", mark: str = "") -> None:
    typer.echo(f"{before}{mark}{step.text}")
    inner = before + ("" if not mark else "   " if mark.startswith("└") else "│  ")
    for number, following in enumerate(step.then):
        _print_tree(following, inner, "└─ " if number == len(step.then) - 1 else "├─ ")
