"""Which plant a queue prefix and a site name mean, held in memory and never older than asked."""

import time
from typing import Any
from uuid import UUID

from psycopg import Connection

from projections.plants import plant_sites, plant_sites_version


class PlantSites:
    """A site is a plant's externalPlantId, or else its UUID, within the organisation that holds the prefix."""

    def __init__(self) -> None:
        self._plants: dict[tuple[str, str], UUID] = {}
        self._version: tuple[int, int] | None = None
        self._checked_at = float("-inf")

    def refresh(self, connection: Connection[Any], since: float) -> bool:
        """Looks for a change, unless it did so since that moment of the monotonic clock: whether it looked."""
        if self._checked_at >= since:
            return False
        now = time.monotonic()
        version = plant_sites_version(connection)
        if version != self._version:
            self._plants = _by_name(plant_sites(connection))
            self._version = version
        self._checked_at = now
        return True

    def find(self, queue_prefix: str, site: str) -> UUID | None:
        plant_id = self._plants.get((queue_prefix, site))
        if plant_id is not None:
            return plant_id
        try:
            return self._plants.get((queue_prefix, str(UUID(site))))
        except ValueError:
            return None


def _by_name(sites: list[tuple[str, UUID, str]]) -> dict[tuple[str, str], UUID]:
    by_id = {(prefix, str(plant_id)): plant_id for prefix, plant_id, _ in sites}
    # Last, so that an external id that looks like another plant's UUID wins, as it does for commands.
    return by_id | {(prefix, external_id): plant_id for prefix, plant_id, external_id in sites}
