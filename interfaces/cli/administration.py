"""Commands about organisations, their API keys and their plants."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from domain.errors import NotFound
from interfaces.cli.output import AsJson, print_json, show
from interfaces.cli.session import organization_id, parts
from projections.api_keys import api_keys
from projections.organisations import organisations

orgs = typer.Typer(help="Organisations.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
plants = typer.Typer(help="Plants.", no_args_is_help=True)

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
    made = {"id": str(organisation.id), "slug": organisation.slug, "name": organisation.name}
    if as_json:
        print_json(made)
    else:
        typer.echo(f"Created {slug}, id {organisation.id}. Next: wattledger keys mint {slug} --scope trading:admin")


@orgs.command(name="list")
def list_organisations(as_json: AsJson = False) -> None:
    """Lists the organisations. Example: wattledger orgs list --json"""
    with parts() as assembly, assembly.connect() as connection:
        show(organisations(connection), as_json)


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
        show(api_keys(connection, organization_id(connection, slug)), as_json)


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
