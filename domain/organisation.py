"""An organisation and its API keys."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, get_args
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.domain import Aggregate, event

from domain.errors import Invalid, NotFound, OrgMembershipRequired

Scope = Literal["trading:read", "trading:write", "trading:admin", "trading:connect", "trading:audit"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,48}[a-z0-9]")
"""Of slugs and queue prefixes alike: 2-50 lowercase alphanumerics or hyphens."""

NAMESPACE = uuid5(NAMESPACE_URL, "urn:wattledger")


@dataclass(frozen=True)
class ApiKey:
    """A minted key; `signing_key_version` is where its signing key lies sealed."""

    id: UUID
    scopes: tuple[str, ...]
    expires_at: datetime | None
    signing_key_version: int
    secret_hash: str = field(repr=False)
    revoked: bool = False

    def is_valid(self, now: datetime) -> bool:
        return not self.revoked and (self.expires_at is None or now < self.expires_at)


class Organisation(Aggregate):
    """Who connects plants to a trading partner. Its name and those of its keys are veiled: see SecretBox."""

    TOPIC = "organisation"

    class Created(Aggregate.Created):
        TOPIC = "organisation:created"
        slug: str
        name: str

    class KeyMinted(Aggregate.Event):
        """`secret_hash` is a keyed hash of 256 random bits; the signing key lies sealed outside the log."""

        TOPIC = "organisation:key-minted"
        key_id: UUID
        name: str
        scopes: list[str]
        secret_hash: str
        signing_key_version: int
        expires_at: datetime | None

    class KeyRevoked(Aggregate.Event):
        TOPIC = "organisation:key-revoked"
        key_id: UUID

    class Closed(Aggregate.Event):
        """It is to be erased: from here on nobody acts for it."""

        TOPIC = "organisation:closed"

    class Erased(Aggregate.Event):
        """Its keys are destroyed: what was personal can't be read any more, here or anywhere else in the log."""

        TOPIC = "organisation:erased"

    @event(Created)
    def __init__(self, slug: str, name: str):
        self.slug = slug
        self.name = name
        self.keys: dict[UUID, ApiKey] = {}
        self.closed = False
        self.erased = False

    @staticmethod
    def create_id(slug: str) -> UUID:
        return uuid5(NAMESPACE, f"organisation:{slug}")

    def mint_key(
        self,
        key_id: UUID,
        name: str,
        scopes: list[str],
        secret_hash: str,
        signing_key_version: int,
        expires_at: datetime | None,
    ) -> None:
        if self.closed:
            raise OrgMembershipRequired
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise Invalid(f"scopes must be some of {', '.join(SCOPES)}")
        if key_id not in self.keys:
            self._key_minted(key_id, name, sorted(set(scopes)), secret_hash, signing_key_version, expires_at)

    def revoke_key(self, key_id: UUID) -> None:
        if key_id not in self.keys:
            raise NotFound("No such API key")
        if not self.keys[key_id].revoked:
            self._key_revoked(key_id)

    def close(self) -> None:
        """Its keys are revoked, and there will be no others."""
        for key_id in self.keys:
            self.revoke_key(key_id)
        if not self.closed:
            self._closed()

    def record_erased(self) -> None:
        """What was to be destroyed is."""
        if self.closed and not self.erased:
            self._erased()

    def signing_keys(self, now: datetime) -> list[ApiKey]:
        """The valid keys that a partner may log in and sign commands with."""
        return [key for key in self.keys.values() if "trading:connect" in key.scopes and key.is_valid(now)]

    @event(KeyMinted)
    def _key_minted(
        self,
        key_id: UUID,
        name: str,
        scopes: list[str],
        secret_hash: str,
        signing_key_version: int,
        expires_at: datetime | None,
    ) -> None:
        self.keys[key_id] = ApiKey(key_id, tuple(scopes), expires_at, signing_key_version, secret_hash)

    @event(KeyRevoked)
    def _key_revoked(self, key_id: UUID) -> None:
        self.keys[key_id] = replace(self.keys[key_id], revoked=True)

    @event(Closed)
    def _closed(self) -> None:
        self.closed = True

    @event(Erased)
    def _erased(self) -> None:
        self.erased = True
