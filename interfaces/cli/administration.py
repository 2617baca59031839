"""Commands about organisations, their API keys and their plants."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import typer

from application.ports import Veil
from domain.errors import Invalid, NotFound
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import organization_id, parts
from projections.api_keys import ApiKeyEntry, api_keys
from projections.organisations import OrganisationEntry, organisations

orgs = typer.Typer(help="Organisations.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
plants = typer.Typer(help="Plants.", no_args_is_help=True)

Named = TypeVar("Named", OrganisationEntry, ApiKeyEntry)
Slug = Annotated[str, typer.Argument(help="The organisation's slug.")]


@orgs.command()
def create(
    slug: Annotated[str, typer.Argument(help="2-50 lowercase letters, digits or hyphens; also its queue prefix.")],
    name: Annotated[str | None, typer.Option(help="Its name; the slug if none is given.")] = None,
    id: Annotated[UUID | None, typer.Option(help="Its id at your identity provider.")] = None,  # noqa: A002
    as_json: AsJson = False,
) -> None:
    """Creates an organisation with a trading config. Example: wattledger orgs create acme --name "Acme Energy" """
    with parts(writes=True) as assembly:
        organisation = assembly.organisations.create(slug, name, id)
    made = {"id": str(organisation.id), "slug": slug, "name": name or slug}
    if as_json:
        print_json(made)
    else:
        typer.echo(f"Created {slug}, id {organisation.id}. Next: wattledger keys mint {slug} --scope trading:admin")


@orgs.command(name="list")
def list_organisations(as_json: AsJson = False) -> None:
    """Lists the organisations. Example: wattledger orgs list --json"""
    with parts() as assembly, assembly.connect() as connection:
        show([_named(each, assembly.trading.secrets.unveil(each.id)) for each in organisations(connection)], as_json)


@orgs.command()
def erase(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erases an organisation for good: its keys, secrets and queues are removed, nobody acts for it any more, and names
    and users in the log can't be read ever again. The log itself stays as it is, so it is proven still.

    What was interrupted is finished when it is run again. Backups of the database hold the keys until they expire.
    Example: wattledger orgs erase acme
    """
    with parts(writes=True) as assembly:
        with assembly.connect() as connection:
            owner = organization_id(connection, slug)
        if not yes and typer.prompt(f"There is no way back. Type {slug} to erase it", err=True) != slug:
            raise Invalid(f"That is not {slug}: nothing was erased")
        queues_deleted = assembly.erasure.erase(owner)
    if as_json:
        print_json({"id": str(owner), "slug": slug, "erased": True, "queuesDeleted": queues_deleted})
        return
    typer.echo(f"Erased {slug}.")
    if not queues_deleted:
        typer.echo("The broker can't be reached: a worker deletes the queues when it can.")
    typer.echo(f"A partner that is connected stays so: rabbitmqctl close_all_user_connections {slug} erased")


@keys.command()
def mint(
    slug: Slug,
    scope: Annotated[list[str], typer.Option(help="trading:read, :write, :admin, :connect, :audit; may be repeated.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Mints an API key and shows it once. Example: wattledger keys mint acme --scope trading:read --days 365"""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with parts(writes=True) as assembly:
        with assembly.connect() as connection:
            owner = organization_id(connection, slug)
        minted = assembly.organisations.mint_key(owner, name or ", ".join(scope), scope, expires_at)
    if as_json:
        print_json({"id": str(minted.id), "apiKey": minted.api_key, "signingKey": minted.signing_key})
    else:
        typer.echo(f"id:          {minted.id}\nAPI key:     {minted.api_key}\nsigning key: {minted.signing_key}")
        typer.echo("Keep both now: they are not shown again.")


@keys.command(name="list")
def list_keys(slug: Slug, as_json: AsJson = False) -> None:
    """Lists an organisation's keys, without their secrets. Example: wattledger keys list acme"""
    with parts() as assembly, assembly.connect() as connection:
        owner = organization_id(connection, slug)
        unveil = assembly.trading.secrets.unveil(owner)
        show([_named(key, unveil) for key in api_keys(connection, owner)], as_json)


@keys.command()
def revoke(slug: Slug, key_id: Annotated[UUID, typer.Argument(help="The key's id.")]) -> None:
    """Revokes a key: it stops working at once. Example: wattledger keys revoke acme 0b5e…"""
    with parts(writes=True) as assembly:
        with assembly.connect() as connection:
            owner = organization_id(connection, slug)
        assembly.organisations.revoke_key(owner, key_id)
    typer.echo(f"Revoked {key_id}.")


@plants.command()
def register(
    slug: Slug,
    external_plant_id: Annotated[str, typer.Argument(help="The plant's id at the ESM.")],
    name: Annotated[str | None, typer.Option(help="Its name; the external id if none is given.")] = None,
) -> None:
    """Registers a plant before the ESM lists it; a sync links it. Example: wattledger plants register acme plant-7"""
    if not external_plant_id.strip():
        raise NotFound("An external plant id can't be empty")
    with parts(writes=True) as assembly:
        with assembly.connect() as connection:
            owner = organization_id(connection, slug)
        plant = assembly.plants.register(owner, external_plant_id, name or external_plant_id)
    typer.echo(f"Registered {external_plant_id}, id {plant.id}.")


def _named(row: Named, unveil: Veil) -> Named:
    """With a name that can be read."""
    return row.model_copy(update={"name": unveil(row.name)})
