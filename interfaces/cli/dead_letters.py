"""Commands about dead letters: what could not be read, why, and sending it again once the cause is mended."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from domain.errors import Invalid
from infra.bootstrap import NotConfigured, find
from infra.dead_letter_queue import Buried, DeadLetterQueue, Requeued
from infra.settings import Settings
from interfaces.cli.output import AsJson, print_json, show

app = typer.Typer(
    help="Messages that could not be read: they lie in vcp.dead for 7 days, 100,000 at most, the oldest go first.",
    no_args_is_help=True,
)

Which = Annotated[str, typer.Argument(help="Its number in the list, or its request id, which never changes.")]


@app.command(name="list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, from the oldest.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Lists the dead letters, oldest first, and leaves them where they are. Example: wattledger dead-letters list

    While it looks nobody else can see them, and a letter that arrives just then may come to stand before them.
    """
    queue = _queue()
    letters = queue.peek(limit)
    show([_row(letter) for letter in letters], as_json)
    if not as_json and len(letters) == limit and (waiting := queue.count()) > limit:
        typer.echo(f"{waiting} in all: see --limit")


@app.command(name="show")
def show_letter(which: Which, as_json: AsJson = False) -> None:
    """Shows one dead letter with its headers and its body. Example: wattledger dead-letters show 1"""
    letter = _queue().find(which)
    told = _row(letter) | {"messageId": letter.message_id, "headers": _plain(letter.headers), "body": _text(letter)}
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        if name not in ("headers", "body"):
            typer.echo(f"{name}: {value}")
    for name, value in told["headers"].items():
        typer.echo(f"header {name}: {value}")
    typer.echo(f"\n{told['body']}")


@app.command()
def requeue(
    which: Annotated[str | None, typer.Argument(help="A number of the list, or a request id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sends dead letters back to the exchange and routing key that they had. Example: wattledger dead-letters requeue 1

    Each is confirmed there before it is removed here, so an interruption loses none; what was sent twice is recognised
    by its message id. What no queue takes stays, and the exit status is 1. Every queue that is bound gets it: a partner
    that reads telemetry, too, may see a sample again.
    """
    if everything == (which is not None):
        raise Invalid("Name one dead letter, or say --all")
    sent = list(_queue().requeue_all()) if which is None else [_queue().requeue(which)]
    if as_json:
        print_json([_row(each.letter) | {"requeued": each.problem is None, "problem": each.problem} for each in sent])
    else:
        typer.echo(_summary(sent))
    if any(each.problem for each in sent):
        raise typer.Exit(1)


def _queue() -> DeadLetterQueue:
    where = find(Settings())
    if where.amqp_url is None:
        raise NotConfigured("No broker that others can reach: set WATTLEDGER_AMQP_URL")
    return DeadLetterQueue(where.amqp_url)


def _summary(sent: list[Requeued]) -> str:
    stayed = [each for each in sent if each.problem]
    lines = [f"Sent again: {len(sent) - len(stayed)}."]
    lines += [f"Stays: {each.letter.number} ({each.letter.original_routing_key}): {each.problem}" for each in stayed]
    return "\n".join(lines)


def _row(letter: Buried) -> dict[str, Any]:
    age = datetime.now(UTC) - letter.died_at if letter.died_at else None
    return {
        "number": letter.number,
        "reason": letter.reason,
        "queue": letter.original_queue,
        "routingKey": letter.original_routing_key,
        "ageSeconds": max(0, int(age.total_seconds())) if age is not None else None,
        "size": letter.size,
        "requestId": letter.request_id,
    }


def _text(letter: Buried) -> str:
    """What is no UTF-8 is shown by its bytes' escapes."""
    return letter.body.decode("utf-8", "backslashreplace")


def _plain(headers: dict[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in headers.items()}
