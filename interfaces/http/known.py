"""Which organisations exist and whose each plant is: by the event log, which never lags, and remembered."""

import time
from dataclasses import dataclass, field
from uuid import UUID

import anyio

from application.event_log import EventLog
from domain.plant import Plant
from domain.trading_config import TradingConfig

REMEMBERED = 100_000
EXISTING_S = 1.0


@dataclass(frozen=True)
class Known:
    """A plant never changes hands, so what was found stays true; an organisation may be closed, so it is asked for
    again soon."""

    events: EventLog
    _organizations: dict[UUID, float] = field(default_factory=dict)
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

    async def organization_of(self, plant_id: UUID) -> UUID | None:
        if plant_id not in self._organization_of:
            plant = await anyio.to_thread.run_sync(self.events.find, Plant, plant_id)
            if plant is None:
                return None
            if len(self._organization_of) >= REMEMBERED:
                self._organization_of.clear()
            self._organization_of[plant_id] = plant.organization_id
        return self._organization_of[plant_id]
