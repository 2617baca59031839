"""Organisations and their API keys."""

import secrets as random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from eventsourcing.persistence import IntegrityError

from application.event_log import EventLog, again_if_overtaken
from application.ports import SecretBox
from domain.errors import AlreadyExists, Invalid, NotFound
from domain.organisation import SLUG, Organisation
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig


class KeyHasher(Protocol):
    """A keyed hash of an API key's random part."""

    def hash(self, secret: str) -> str: ...


@dataclass(frozen=True)
class MintedKey:
    """Shown once: the key a caller sends, and the hex key that its holder signs commands with."""

    id: UUID
    api_key: str = field(repr=False)
    signing_key: str = field(repr=False)


@dataclass(frozen=True)
class Organisations:
    events: EventLog
    secrets: SecretBox
    hasher: KeyHasher

    def create(self, slug: str, name: str | None = None, organization_id: UUID | None = None) -> Organisation:
        """With its trading config, and its slug claimed as queue prefix for ever, in one transaction."""
        if not SLUG.fullmatch(slug):
            raise Invalid("A slug is 2-50 lowercase letters, digits or hyphens, and neither begins nor ends with one")
        new_id = organization_id or Organisation.create_id(slug)
        prefix = self.events.find(QueuePrefix, QueuePrefix.create_id(slug))
        if prefix is not None or self.events.find(Organisation, new_id):
            raise AlreadyExists(f"The slug {slug} is taken")
        organisation = _organisation(slug, self.secrets.veil(new_id)(name or slug), organization_id)
        config = TradingConfig(organization_id=organisation.id, queue_prefix=slug)
        try:
            self.events.save(organisation, config, QueuePrefix(slug, organisation.id, True))
        except IntegrityError:
            raise AlreadyExists(f"The slug {slug} is taken") from None
        return organisation

    @again_if_overtaken
    def mint_key(
        self, organization_id: UUID, name: str, scopes: list[str], expires_at: datetime | None = None
    ) -> MintedKey:
        """The signing key is sealed first: a crash in between leaves one that nobody knows."""
        organisation = self._load(organization_id)
        key_id, secret, signing_key = uuid4(), random.token_urlsafe(32), random.token_hex(32)
        veiled, secret_hash = self.secrets.veil(organization_id)(name), self.hasher.hash(secret)
        version = self.secrets.seal(organization_id, signing_key_field(key_id), signing_key)
        organisation.mint_key(key_id, veiled, scopes, secret_hash, version, expires_at)
        self.events.save(organisation)
        return MintedKey(key_id, f"wl_{key_id.hex}_{secret}", signing_key)

    @again_if_overtaken
    def revoke_key(self, organization_id: UUID, key_id: UUID) -> None:
        organisation = self._load(organization_id)
        organisation.revoke_key(key_id)
        self.events.save(organisation)

    def _load(self, organization_id: UUID) -> Organisation:
        organisation = self.events.find(Organisation, organization_id)
        if organisation is None:
            raise NotFound("No such organisation")
        return organisation


def signing_key_field(key_id: UUID) -> str:
    """The secret box's field of an API key's signing key."""
    return f"signing-key:{key_id}"


def parse_api_key(api_key: str) -> tuple[UUID, str] | None:
    """The key's id and its random part, None if it has not the form `wl_{id}_{secret}`."""
    parts = api_key.split("_", 2)
    if len(parts) != 3 or parts[0] != "wl" or len(parts[1]) != 32:
        return None
    try:
        return UUID(hex=parts[1]), parts[2]
    except ValueError:
        return None


def _organisation(slug: str, name: str, organization_id: UUID | None) -> Organisation:
    if organization_id is None:
        return Organisation(slug=slug, name=name)
    # An operator's identity provider may know it under an id already.
    created: Organisation = Organisation._create(  # noqa: SLF001 - the library's way to give an id from outside
        Organisation.Created, id=organization_id, slug=slug, name=name
    )
    return created
