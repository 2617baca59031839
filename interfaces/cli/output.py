"""What commands print: tables for people, JSON for scripts."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def show(rows: Sequence[Any], as_json: bool) -> None:
    """Rows of one kind, as a table or as a JSON array with the same names."""
    plain = [_plain(row) for row in rows]
    if as_json:
        print_json([{to_camel(name): value for name, value in row.items()} for row in plain])
        return
    if not plain:
        typer.echo("None.")
        return
    table = Table(*plain[0], box=None, pad_edge=False)
    for row in plain:
        table.add_row(*("" if value is None else _text(value) for value in row.values()))
    # A pipe has no width: a script must get whole words.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS).decode())


def json_line(value: Any) -> str:
    """On one line, by the API's names."""
    return orjson.dumps(value, default=_api_names, option=orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_UTC_Z).decode()


def _api_names(value: Any) -> dict[str, Any]:
    return {to_camel(name): each for name, each in _plain(value).items()}


def _plain(row: Any) -> dict[str, Any]:
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json", by_alias=True)
    return dataclasses.asdict(row) if dataclasses.is_dataclass(row) and not isinstance(row, type) else dict(row)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
