"""What a batch of messages is judged by, each part read once: who holds a prefix, what they trade, how they sign."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from application.event_log import EventLog
from application.organisations import signing_key_field
from application.ports import SecretBox
from domain.organisation import Organisation
from domain.plant import Plant
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Sight:
    """Good for one batch: the next one looks anew."""

    events: EventLog
    secrets: SecretBox
    _seen: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def organization_id(self, queue_prefix: str) -> UUID | None:
        """Who holds the prefix."""

        def read() -> UUID | None:
            prefix = self.events.find(QueuePrefix, QueuePrefix.create_id(queue_prefix))
            return prefix.holder if prefix is not None else None

        return self._once(("prefix", queue_prefix), read)

    def trades(self, organization_id: UUID) -> bool:
        def read() -> bool:
            return self.events.load(TradingConfig, TradingConfig.create_id(organization_id)).is_enabled

        return self._once(("trades", organization_id), read)

    def plant(self, organization_id: UUID, site_id: str) -> Plant | None:
        """By its external id, or by its own id within the organisation."""

        def read() -> Plant | None:
            plant = self.events.find(Plant, Plant.create_id(organization_id, site_id))
            if plant is None:
                try:
                    plant = self.events.find(Plant, UUID(site_id))
                except ValueError:
                    return None
            return plant if plant is not None and plant.organization_id == organization_id else None

        return self._once(("plant", organization_id, site_id), read)

    def expect(self, sites: Iterable[tuple[UUID, str]]) -> None:
        """Reads the plants of these organisations and sites at once, as far as they go by their external ids."""
        unseen = {Plant.create_id(*site): ("plant", *site) for site in set(sites) if ("plant", *site) not in self._seen}
        if len(unseen) > 1:
            found = self.events.find_all(Plant, list(unseen))
            self._seen.update((unseen[plant_id], plant) for plant_id, plant in found.items())

    def signing_keys(self, organization_id: UUID, kid: str | None, now: datetime) -> Iterator[str]:
        """The organisation's valid keys in hex: the named one, or all of them where none is named."""
        organisation = self._once(
            ("organisation", organization_id), lambda: self.events.load(Organisation, organization_id)
        )
        for key in organisation.signing_keys(now):
            if kid is not None and kid not in (str(key.id), key.id.hex):
                continue
            signing_key = self._signing_key(organization_id, key.id, key.signing_key_version)
            if signing_key is not None:
                yield signing_key

    def _signing_key(self, organization_id: UUID, key_id: UUID, version: int) -> str | None:
        """None for one that was forgotten: it signs nothing any more."""

        def read() -> str | None:
            try:
                return self.secrets.open(organization_id, signing_key_field(key_id), version)
            except KeyError:
                return None

        return self._once(("key", key_id), read)

    def _once(self, what: Hashable, read: Callable[[], T]) -> T:
        if what not in self._seen:
            self._seen[what] = read()
        seen: T = self._seen[what]
        return seen
