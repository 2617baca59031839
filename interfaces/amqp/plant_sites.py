"""Which plant a queue prefix and a site name mean, held in memory and never older than asked."""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg import Connection

from projections.plants import plant_counts, plant_sites

NOBODY: Mapping[str, UUID] = {}


class PlantSites:
    """A site is a plant's externalPlantId, or else its UUID, within the organisation that holds the prefix."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, Mapping[str, UUID]] = {}
        self._by_organization: dict[UUID, Mapping[str, UUID]] = {}
        self._counts: dict[UUID, tuple[str, int]] = {}
        self._checked_at = float("-inf")

    def refresh(self, connection: Connection[Any], since: float) -> bool:
        """Looks for a change, unless it did so since that moment of the monotonic clock: whether it looked.

        Only the plants of organisations that got new ones are read anew.
        """
        if self._checked_at >= since:
            return False
        now = time.monotonic()
        counts = plant_counts(connection)
        if counts != self._counts:
            grown = [each for each in counts if self._count(each) != counts[each][1]]
            self._by_organization |= _by_name(plant_sites(connection, grown))
            self._by_prefix = {prefix: self._by_organization.get(each, NOBODY) for each, (prefix, _) in counts.items()}
            self._counts = counts
        self._checked_at = now
        return True

    def find(self, queue_prefix: str, site: str) -> UUID | None:
        plants = self._by_prefix.get(queue_prefix, NOBODY)
        plant_id = plants.get(site)
        if plant_id is not None:
            return plant_id
        try:
            return plants.get(str(UUID(site)))
        except ValueError:
            return None

    def _count(self, organization_id: UUID) -> int:
        return self._counts[organization_id][1] if organization_id in self._counts else 0


def _by_name(sites: list[tuple[UUID, UUID, str]]) -> dict[UUID, Mapping[str, UUID]]:
    named: defaultdict[UUID, dict[str, UUID]] = defaultdict(dict)
    for organization_id, plant_id, _ in sites:
        named[organization_id][str(plant_id)] = plant_id
    # Last, so that an external id that looks like another plant's UUID wins, as it does for commands.
    for organization_id, plant_id, external_id in sites:
        named[organization_id][external_id] = plant_id
    return dict(named)
