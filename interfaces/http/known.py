"""Which organisations exist, whose each plant is, and how each reads what is veiled: never lagging, and remembered."""

import time
from dataclasses import dataclass, field
from itertools import takewhile
from uuid import UUID

import anyio

from application.event_log import EventLog
from application.ports import SecretBox, Veil
from domain.plant import Plant
from domain.trading_config import TradingConfig

REMEMBERED = 100_000
EXISTING_S = 1.0


@dataclass(frozen=True)
class Known:
    """A plant never changes hands, so what was found stays true; an organisation may be closed and its key destroyed,
    so both are asked for again soon."""

    events: EventLog
    secrets: SecretBox
    _organizations: dict[UUID, float] = field(default_factory=dict)
    _veils: dict[UUID, tuple[Veil, float]] = field(default_factory=dict, repr=False)
    _organization_of: dict[UUID, UUID] = field(default_factory=dict)

    async def organization_exists(self, organization_id: UUID) -> bool:
        """And is not closed."""
        now = time.monotonic()
        if now >= self._organizations.get(organization_id, 0):
            config_id = TradingConfig.create_id(organization_id)
            config = await anyio.to_thread.run_sync(self.events.find, TradingConfig, config_id)
            if config is None or config.closed:
                return False
            self._organizations[organization_id] = now + EXISTING_S
        return True

    async def unveil(self, organization_id: UUID) -> Veil:
        now = time.monotonic()
        found, until = self._veils.get(organization_id, (None, 0.0))
        if found is None or now >= until:
            found = await anyio.to_thread.run_sync(self.secrets.unveil, organization_id)
            # Keys that are not used are not kept; the oldest come first.
            for other in [*takewhile(lambda each: now >= self._veils[each][1], self._veils)]:
                del self._veils[other]
            if found is not str:  # there is a key
                self._veils[organization_id] = (found, now + EXISTING_S)
        return found

    async def organization_of(self, plant_id: UUID) -> UUID | None:
        if plant_id not in self._organization_of:
            plant = await anyio.to_thread.run_sync(self.events.find, Plant, plant_id)
            if plant is None:
                return None
            if len(self._organization_of) >= REMEMBERED:
                self._organization_of.clear()
            self._organization_of[plant_id] = plant.organization_id
        return self._organization_of[plant_id]
