"""The demo organisation of `wattledger up`, and demo.json, which tells scripts about it."""

import json
import time
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import UUID

from pydantic import Field, ValidationError

from application.context import Metadata, acting
from application.trading import TradingConfigChange
from domain.organisation import Organisation
from domain.plant import Plant
from infra.bootstrap import Parts, write_private
from infra.sandbox.esm import SandboxEsm
from projections.page import ApiModel

SLUG = "demo"
SCOPES = {"admin": "trading:admin", "write": "trading:write", "read": "trading:read", "connect": "trading:connect"}
BACK_FILL = timedelta(hours=24)
TELEMETRY_PATIENCE_S = 8.0


class DemoPlant(ApiModel):
    id: UUID
    external_plant_id: str


class Demo(ApiModel):
    """demo.json: where everything is and the keys to it."""

    url: str
    organization_id: UUID
    organization_slug: str
    api_keys: dict[str, str]
    signing_key: str
    plants: list[DemoPlant]
    database_url: str
    amqp_url: str | None
    sandbox_url: str
    is_new: bool = Field(default=False, exclude=True)

    @property
    def partner_amqp_url(self) -> str | None:
        """As the partner itself: the organisation's slug and its key to connect with."""
        if self.amqp_url is None:
            return None
        url = urlsplit(self.amqp_url)
        login = f"{self.organization_slug}:{quote(self.api_keys['connect'], safe='')}"
        return url._replace(netloc=f"{login}@{url.netloc.rpartition('@')[2]}").geturl()

    @property
    def sandbox_port(self) -> int:
        return urlsplit(self.sandbox_url).port or 0


def seeded(parts: Parts, esm: SandboxEsm, url: str, before: Demo | None) -> Demo:
    """Creates what is missing of the demo; on a later start only what changed."""
    with acting(Metadata(actor="cli:demo", source="cli")):
        slug = _slug(parts)
        organization_id = Organisation.create_id(slug)
        is_new = parts.events.find(Organisation, organization_id) is None
        if is_new:
            parts.organisations.create(slug, "Demo organisation")
        keys, signing_key = _keys(parts, organization_id, before)
        partner = TradingConfigChange(
            esm_api_url=esm.url, esm_client_id=esm.client_id, esm_client_secret=esm.client_secret
        )
        parts.trading.change_config(organization_id, partner)
        parts.trading.enable(organization_id)
        parts.plants.sync(organization_id)
    return Demo(
        url=url,
        organization_id=organization_id,
        organization_slug=slug,
        api_keys=keys,
        signing_key=signing_key,
        plants=[
            DemoPlant(id=Plant.create_id(organization_id, external_id), external_plant_id=external_id)
            for external_id in (plant.plant_id for plant in esm.plants.all())
        ],
        database_url=parts.where.database_url,
        amqp_url=parts.where.amqp_url,
        sandbox_url=esm.url,
        is_new=is_new,
    )


def wait_for_telemetry(parts: Parts, demo: Demo) -> None:
    """Until each plant has told of itself, a few seconds at most: what is printed then works."""
    plants, end = [plant.id for plant in demo.plants], time.monotonic() + TELEMETRY_PATIENCE_S
    while time.monotonic() < end:
        with parts.pool.connection() as connection:
            row = connection.execute(
                "SELECT count(*) FROM telemetry_latest WHERE plant_id = ANY(%s)", [plants]
            ).fetchone()
        if row and row[0] == len(plants):
            return
        time.sleep(0.05)


def read_demo(home: Path) -> Demo | None:
    """Of the last start; None when there is none that can be read."""
    try:
        return Demo.model_validate(json.loads((home / "demo.json").read_text()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None


def write_demo(home: Path, demo: Demo) -> None:
    write_private(home / "demo.json", demo.model_dump_json(by_alias=True, indent=2) + "\n")


def _slug(parts: Parts) -> str:
    """The first of demo, demo-2 … that was not erased."""
    for slug in chain([SLUG], (f"{SLUG}-{number}" for number in count(2))):
        organisation = parts.events.find(Organisation, Organisation.create_id(slug))
        if organisation is None or not organisation.closed:
            return slug
    raise AssertionError


def _keys(parts: Parts, organization_id: UUID, before: Demo | None) -> tuple[dict[str, str], str]:
    """Those of the last start if they are this organisation's; an API key is never to be had again otherwise."""
    organisation = parts.events.load(Organisation, organization_id)
    if before is not None and before.organization_id == organization_id and organisation.keys:
        return before.api_keys, before.signing_key
    minted = {
        name: parts.organisations.mint_key(organization_id, f"demo {name}", [scope]) for name, scope in SCOPES.items()
    }
    return {name: key.api_key for name, key in minted.items()}, minted["connect"].signing_key
