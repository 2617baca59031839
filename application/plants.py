"""The plants of an organisation, synced from the lists of its ESM."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from application.event_log import EventLog, again_if_overtaken
from application.ports import EsmClient, EsmPlant, EsmPlantList, SyncTurns, Veil
from application.trading import Trading
from domain.errors import EsmNotConfigured, EsmUnreachable
from domain.plant import Plant, PlantDescription

SAVED_AT_ONCE = 100
TOLD_AT_ONCE = 20
SECRET_FORGOTTEN = "The ESM client secret was forgotten: set it anew"  # noqa: S105 - a sentence

log = logging.getLogger(__name__)

LinkedPlants = Callable[[UUID], Sequence[UUID]]
"""The ids of an organisation's linked plants, as the read side knows them: a plant that it does not show yet is only
missed one sync later."""


@dataclass(frozen=True)
class SyncResult:
    """`synced` counts the plants that are right now, `errors` those that could not be read."""

    synced: int
    errors: int


@dataclass(frozen=True)
class Plants:
    events: EventLog
    esm: EsmClient
    trading: Trading
    turns: SyncTurns
    linked_plants: LinkedPlants

    def sync(self, organization_id: UUID) -> SyncResult:
        """Fetches the partner's list and records what differs; a list that can't be fetched raises EsmUnreachable.

        Whatever goes wrong, its next scheduled turn comes later."""
        config = self.trading.load(organization_id)
        if not config.is_complete:
            raise EsmNotConfigured
        with self.turns.take(organization_id):
            try:
                listed = self._listed(organization_id)
                self._record_plants(organization_id, listed, self.turns.last_success(organization_id))
                self._record_sync(organization_id, listed)
            except Exception:
                self.turns.failed(organization_id)
                raise
            self.turns.succeeded(organization_id)
        return SyncResult(len(listed.plants), len(listed.errors))

    @again_if_overtaken
    def register(self, organization_id: UUID, external_plant_id: str, name: str) -> Plant:
        """By the command line: the plant is linked once the ESM lists it."""
        self.trading.load(organization_id)
        plant_id = Plant.create_id(organization_id, external_plant_id)
        veiled = self.trading.secrets.veil(organization_id)(name)
        plant = self.events.find(Plant, plant_id) or Plant(organization_id, external_plant_id, veiled)
        self.events.save(plant)
        return plant

    def _listed(self, organization_id: UUID) -> EsmPlantList:
        # Read in our turn: the config may have changed while we waited for it.
        partner = self.trading.partner(self.trading.load(organization_id))
        if partner is None:
            self._record_failure(organization_id, SECRET_FORGOTTEN)
            raise EsmNotConfigured
        try:
            return self.esm.plants(partner)
        except EsmUnreachable as error:
            self._record_failure(organization_id, str(error))
            raise

    def _record_plants(self, organization_id: UUID, listed: EsmPlantList, last_seen_at: datetime | None) -> None:
        veil = self.trading.secrets.veil(organization_id)
        by_id = {Plant.create_id(organization_id, each.plant_id): _veiled(each, veil) for each in listed.plants}
        there = by_id.keys() | {Plant.create_id(organization_id, plant_id) for plant_id in listed.unread}
        missing = [plant_id for plant_id in self.linked_plants(organization_id) if plant_id not in there]
        plant_ids = [*by_id, *missing]
        for start in range(0, len(plant_ids), SAVED_AT_ONCE):
            self._record_some(organization_id, plant_ids[start : start + SAVED_AT_ONCE], by_id, last_seen_at)

    @again_if_overtaken
    def _record_some(
        self,
        organization_id: UUID,
        plant_ids: Sequence[UUID],
        listed: dict[UUID, EsmPlant],
        last_seen_at: datetime | None,
    ) -> None:
        plants = self.events.find_all(Plant, plant_ids)
        for plant_id in plant_ids:
            if plant_id in listed:
                plant = plants.get(plant_id) or _new(organization_id, listed[plant_id])
                plants[plant_id] = plant
                plant.link(_description(listed[plant_id]))
            else:
                plants[plant_id].miss(last_seen_at)
        self.events.save(*(plant for plant in plants.values() if plant.pending_events))

    @again_if_overtaken
    def _record_sync(self, organization_id: UUID, listed: EsmPlantList) -> None:
        config = self.trading.load(organization_id)
        config.record_sync(len(listed.plants), list(listed.errors))
        if config.pending_events and listed.errors:
            fields = {"organization_id": str(organization_id), "errors": listed.errors[:TOLD_AT_ONCE]}
            log.warning("%d listed plants can't be read", len(listed.errors), extra=fields)
        self.events.save(config)

    @again_if_overtaken
    def _record_failure(self, organization_id: UUID, error: str) -> None:
        config = self.trading.load(organization_id)
        config.record_sync_failure(error)
        self.events.save(config)


def _veiled(plant: EsmPlant, veil: Veil) -> EsmPlant:
    """Without what may tell of people. The same words are veiled the same way, so what did not change is equal."""
    return replace(plant, name=veil(plant.name), description=plant.description and veil(plant.description))


def _new(organization_id: UUID, plant: EsmPlant) -> Plant:
    return Plant(organization_id=organization_id, external_plant_id=plant.plant_id, name=plant.name)


def _description(plant: EsmPlant) -> PlantDescription:
    return PlantDescription(
        plant.name,
        plant.description,
        plant.capacity_kwh,
        plant.fve_peak_power_kwp,
        plant.plant_with_load,
        plant.config_enabled,
        plant.esi_state,
    )
