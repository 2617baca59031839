"""What a short command works with: the parts, acting as the command line, and read models that show what it did."""

import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from uuid import UUID

import typer
from psycopg import Connection

from application.context import Metadata, acting
from domain.errors import NotFound
from infra import logs
from infra.bootstrap import Parts, assembled, find
from infra.settings import Settings
from projections.audit_log import AuditEntry, unveiled
from projections.follower import Follower
from projections.organisations import organisation_by_slug
from projections.read_models import READ_MODELS
from projections.slots import slot_statuses

PATIENCE_S = 5.0


@contextmanager
def parts(*, writes: bool = False) -> Iterator[Parts]:
    """Whatever is saved inside carries the operator's name, and is in the read models when the block ends."""
    settings = Settings()
    logs.configure("CRITICAL")  # a short command says itself what is wrong
    with assembled(find(settings), settings) as assembly, acting(Metadata(actor=_operator(), source="cli")) as task:
        yield assembly
        if writes and task.position:
            _catch_up(assembly, task.position)


def organization_id(connection: "Connection[Any]", slug: str) -> UUID:
    found = organisation_by_slug(connection, slug)
    if found is None:
        raise NotFound(f"No organisation {slug}: see `wattledger orgs list`")
    return found.id


def reading(assembly: Parts) -> Callable[[AuditEntry], AuditEntry]:
    """Makes an event readable, whosever it is."""
    unveil = cache(assembly.trading.secrets.unveil)
    return lambda entry: unveiled(entry, unveil(entry.organization_id)) if entry.organization_id else entry


def _operator() -> str:
    with suppress(OSError, KeyError):
        return f"cli:{getpass.getuser()}"
    return "cli"


def _catch_up(assembly: Parts, position: int) -> None:
    """By the worker that runs, else by ourselves, so that a minted key works at once."""
    Follower("projector", READ_MODELS, assembly.connect, assembly.decode, announces=True).catch_up()
    end = time.monotonic() + PATIENCE_S
    names = {model.name for model in READ_MODELS}
    with assembly.connect() as connection:
        while time.monotonic() < end:
            slots = [slot for slot in slot_statuses(connection) if slot.name in names and slot.parked_at is None]
            if all(slot.position >= position for slot in slots):
                return
            time.sleep(0.02)
    typer.echo("wattledger: saved, but the read models are behind: see `wattledger projections status`", err=True)
