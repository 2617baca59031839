"""Commands for auditors: proof that the event log is what was recorded."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic.alias_generators import to_camel

from infra.audit.export import Selection
from infra.audit.export import export as export_bundle
from infra.audit.sealer import Sealer
from infra.audit.sealing_keys import SealingKey, SealingKeys, sealing_keys
from infra.audit.verification import ANCHOR, FINGERPRINT, Trusted, Verified
from infra.audit.verification import verify as verify_log
from infra.bootstrap import Parts
from infra.data_keys import DataKeys
from interfaces.cli import progress
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import organization_id, parts

app = typer.Typer(help="Proof that the event log is what was recorded.", no_args_is_help=True)

PublicKey = Annotated[
    str | None, typer.Option(metavar="FILE|FINGERPRINT", help="A sealing key that you know to be the log's.")
]
Anchor = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE|DIGEST@N", help="A seal that you kept: a file with it, or the words themselves."),
]

TRUST = {
    "pinned": "The key that you named vouches for the seals.",
    "operator": "Keys made with this installation's secret keys vouch for the seals.",
}


@app.command()
def verify(
    from_seal: Annotated[int, typer.Option(min=1, help="Believe the seals before this one.")] = 1,
    public_key: PublicKey = None,
    anchor: Anchor = None,
    as_json: AsJson = False,
) -> None:
    """Checks every sealed event, seal, signature and key; exit status 1 if something was tampered with.

    Appends go on meanwhile. Example: wattledger audit verify --anchor kept.txt
    """
    with parts() as assembly, assembly.connect() as connection, progress.shown() as shown:
        trusted = Trusted(_pinned(public_key), _keys(assembly).opens(connection), _anchors(anchor or []))
        found = verify_log(connection, trusted, from_seal=from_seal, progress=shown)
    if as_json:
        print_json({to_camel(name): value for name, value in dataclasses.asdict(found).items()})
    else:
        typer.echo("\n".join(_told(found)))
    if not found.intact:
        raise typer.Exit(1)


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(help="A new directory, or a new file that ends in .zip.")],
    organisation: Annotated[str | None, typer.Option(help="Only its events; of all others their hashes.")] = None,
    since: Annotated[datetime | None, typer.Option("--from", help="Recorded then or later, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Recorded before then, in UTC.")] = None,
    as_json: AsJson = False,
) -> None:
    """Writes what is sealed as a bundle that anybody can verify without Wattledger, by the script in it.

    Example: wattledger audit export bundle.zip --organisation acme --from 2026-01-01
    """
    with parts() as assembly, assembly.connect() as connection, progress.shown() as shown:
        owner = organization_id(connection, organisation) if organisation else None
        selection = Selection(owner, _utc(since), _utc(until))
        Sealer(assembly.connect, _keys(assembly)).catch_up()
        made = export_bundle(connection, _keys(assembly), bundle, selection, shown)
    show([made], as_json)


def _utc(time: datetime | None) -> datetime | None:
    return time and time.replace(tzinfo=time.tzinfo or UTC)


@app.command()
def keys(as_json: AsJson = False) -> None:
    """Lists the public keys that seals are signed with, the first one to be kept by auditors.

    Example: wattledger audit keys --json
    """
    with parts() as assembly, assembly.connect() as connection:
        show([_row(key) for key in sealing_keys(connection)], as_json)


@app.command("rotate-key")
def rotate_key(as_json: AsJson = False) -> None:
    """Makes the next sealing key, which the present one endorses before its private half is destroyed.

    Example: wattledger audit rotate-key
    """
    with parts() as assembly, assembly.connect() as connection:
        show([_row(_keys(assembly).rotate(connection))], as_json)


def _told(found: Verified) -> list[str]:
    checked = f"{found.events:,} events under {found.seals:,} seals are as they were sealed."
    if not found.intact:
        where = "" if found.position is None else f" at position {found.position}"
        seal = "" if found.seal is None else f" (seal {found.seal})"
        return [f"TAMPERED{where}{seal}: {found.what}.", f"Before that, {checked}"]
    lines = [f"Intact: {checked}", TRUST[found.trust] if found.trust else "Nothing is sealed yet: a worker does it."]
    if found.unsealed:
        lines.append(f"{found.unsealed:,} events since {found.unsealed_since} are not sealed yet, so not proven.")
    if found.anchor:
        lines.append(f"Keep this elsewhere, and give it as --anchor the next time: {found.anchor}")
    return lines


def _row(key: SealingKey) -> dict[str, object]:
    return {
        "number": key.number,
        "fingerprint": key.fingerprint.hex(),
        "public_key": key.public_key.hex(),
        "created_at": key.created_at,
        "seals": key.sealed_private is not None,
    }


def _keys(assembly: Parts) -> SealingKeys:
    return SealingKeys(DataKeys(assembly.where.secret_keys))


def _pinned(given: str | None) -> bytes | None:
    if given is None:
        return None
    found = FINGERPRINT.search(_text(given))
    if found is None:
        raise typer.BadParameter("neither a fingerprint (64 hexadecimal digits) nor a file that has one")
    return bytes.fromhex(found[0])


def _anchors(given: list[str]) -> dict[int, bytes]:
    found = {int(number): bytes.fromhex(digest) for each in given for digest, number in ANCHOR.findall(_text(each))}
    if given and not found:
        raise typer.BadParameter("neither DIGEST@N nor a file that has one")
    return found


def _text(given: str) -> str:
    """The contents of a file of that name, else the words themselves."""
    path = Path(given)
    return path.read_text() if len(given) < 4096 and path.is_file() else given
