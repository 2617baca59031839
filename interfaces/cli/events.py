"""Commands about the events: their catalogue, and a check of all that is stored against it."""

import dataclasses

import typer

from infra import event_catalogue
from interfaces.cli import progress
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import parts

app = typer.Typer(help="The events in the log.", no_args_is_help=True)


@app.command()
def catalogue(as_json: AsJson = False) -> None:
    """Lists every kind of event; as JSON with its JSON Schema. Example: wattledger events catalogue --json"""
    known = event_catalogue.catalogue()
    if as_json:
        print_json([dataclasses.asdict(each) for each in known])
    else:
        show([{"topic": each.topic, "version": each.version, "fields": each.fields} for each in known], False)


@app.command()
def check(as_json: AsJson = False) -> None:
    """Reads every stored event; exit status 1 if one can't be read. Example: wattledger events check"""
    with parts() as assembly, assembly.connect() as connection, progress.shown() as shown:
        found = event_catalogue.check(connection, shown)
    show(found, as_json)
    if any(each.unreadable for each in found):
        raise typer.Exit(1)
