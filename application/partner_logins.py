"""What the broker asks about a partner who logs in: user = organisation slug, password = one of its API keys."""

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from application.context import Clock, utc_now
from application.event_log import EventLog
from application.organisations import parse_api_key
from domain import partner_rights
from domain.organisation import SLUG, ApiKey, Organisation
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig

NO_HASH = "0" * 64


class KeyMatcher(Protocol):
    """Compares the random part of an API key with its stored keyed hash, in constant time."""

    def matches(self, secret: str, secret_hash: str) -> bool: ...


@dataclass(frozen=True)
class PartnerLogins:
    """Asks the event log, which never lags, so that a revoked key is denied at once. `virtual_host` is ours."""

    events: EventLog
    keys: KeyMatcher
    virtual_host: str
    now: Clock = utc_now

    def may_log_in(self, slug: str, password: str | None) -> bool:
        """Without a password the broker only asks whether somebody whom it has authenticated already may be here:
        its cache does so after each login."""
        connect_keys = self._connect_keys(slug)
        if password is None:
            return bool(connect_keys)
        key_id, secret = parse_api_key(password) or (None, "")
        key = connect_keys.get(key_id) if key_id else None
        # An unknown key takes as long as a wrong one.
        return self.keys.matches(secret, key.secret_hash if key else NO_HASH) and key is not None

    def may_enter(self, slug: str, virtual_host: str) -> bool:
        return virtual_host == self.virtual_host and bool(self._connect_keys(slug))

    def may_use(self, slug: str, virtual_host: str, resource: str, name: str, permission: str) -> bool:
        prefix = self._prefix(slug, virtual_host)
        return prefix is not None and partner_rights.may_use(prefix, resource, name, permission)

    def may_route(self, slug: str, virtual_host: str, exchange: str, permission: str, routing_key: str) -> bool:
        prefix = self._prefix(slug, virtual_host)
        return prefix is not None and partner_rights.may_route(prefix, exchange, permission, routing_key)

    def _prefix(self, slug: str, virtual_host: str) -> str | None:
        """The queue prefix of an organisation that has a key to connect with, in our virtual host."""
        organisation = self._organisation(slug) if virtual_host == self.virtual_host else None
        if organisation is None or not organisation.signing_keys(self.now()):
            return None
        config = self.events.find(TradingConfig, TradingConfig.create_id(organisation.id))
        return config.queue_prefix if config else None

    def _connect_keys(self, slug: str) -> dict[UUID, ApiKey]:
        organisation = self._organisation(slug)
        return {key.id: key for key in organisation.signing_keys(self.now())} if organisation else {}

    def _organisation(self, slug: str) -> Organisation | None:
        """By its claim on its slug: its id may be one that an operator's identity provider gave it."""
        if not SLUG.fullmatch(slug):
            return None
        claim = self.events.find(QueuePrefix, QueuePrefix.create_id(slug))
        if claim is None or not claim.is_slug or claim.holder is None:
            return None
        return self.events.find(Organisation, claim.holder)
