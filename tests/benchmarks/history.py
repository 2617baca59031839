"""A log as a year of work leaves it: organisations, plants, commands that live and end, config changes."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from psycopg import Connection

from domain.organisation import NAMESPACE, Organisation
from domain.plant import Plant, PlantDescription
from domain.plant_config import PlantConfig
from domain.relayed_command import CommandType, RelayedCommand
from domain.trading_config import TradingConfig
from infra.event_mapper import EventMapper

AT_WORK = 200
TYPES: tuple[CommandType, ...] = ("SITE_SETPOINT", "SITE_SETPOINT", "DEVICE_COMMAND", "MODE_CHANGE", "SCHEDULE")
METADATA = '{"actor": "partner:acme", "source": "amqp", "request_id": "5f0c2f0e-7d3c-4a43-8a44-0a4c8f8a5b11"}'


def fill(connection: "Connection[Any]", count: int, *, organisations: int = 10, plants: int = 20) -> None:
    """Writes `count` events by COPY, numbered on from 1; the same ones each time."""
    mapper = EventMapper()
    columns = "position, stream_id, version, topic, state, event_id, metadata, recorded_at"
    with connection.cursor().copy(f"COPY events ({columns}) FROM STDIN") as copy:
        for position, event in zip(range(1, count + 1), _events(organisations, plants), strict=False):
            stored = mapper.to_stored_event(event)
            row = (stored.originator_id, stored.originator_version, stored.topic, stored.state)
            copy.write_row((position, *row, uuid5(NAMESPACE, str(position)), METADATA, event.timestamp))
    connection.execute("VACUUM ANALYZE events")


def command(rng: random.Random, organization_id: UUID, plant_id: UUID, number: int) -> RelayedCommand:
    message_id = UUID(int=rng.getrandbits(128), version=4)
    command_type = TYPES[number % len(TYPES)]
    # The library's way to give an id from outside.
    created: RelayedCommand = RelayedCommand._create(
        RelayedCommand.Created,
        originator_id=RelayedCommand.create_id(organization_id, message_id),
        organization_id=organization_id,
        queue_prefix="acme",
        plant_id=plant_id,
        message_id=message_id,
        correlation_id=f"correlation-{number}",
        command_type=command_type,
        type="command.site-setpoint",
        routing_key="acme.command.site-setpoint",
        site_id=f"site-{number % 20}",
        sent_at=datetime.now(UTC),
        payload={"type": "POWER", "targetValueKw": 12.5, "direction": "EXPORT", "validFrom": "2026-01-01T00:00:00Z"},
        digest=f"{number:064x}",
        signed=True,
    )
    return created


def _events(organisations: int, plants: int) -> Iterator[Any]:
    rng = random.Random(7)
    known = [_organisation(number) for number in range(organisations)]
    sites = []
    for organization_id, aggregates in known:
        for aggregate in aggregates:
            yield from aggregate.collect_events()
        for number in range(plants):
            plant = Plant(organization_id=organization_id, external_plant_id=f"P{number}", name=f"Plant {number}")
            plant.link(PlantDescription(f"Roof {number}", capacity_kwh=10.0))
            yield from plant.collect_events()
            sites.append((organization_id, plant.id, PlantConfig(organization_id=organization_id, plant_id=plant.id)))
    yield from _work(rng, sites)


def _organisation(number: int) -> tuple[UUID, list[Any]]:
    organisation = Organisation(slug=f"org-{number}", name=f"Organisation {number}")
    organisation.mint_key(UUID(int=number + 1), "partner", ["trading:connect"], "0" * 64, 1, None)
    config = TradingConfig(organization_id=organisation.id, queue_prefix=organisation.slug)
    config.change_partner("https://esm.example.com", "wattledger")
    config.set_credentials(1)
    config.enable()
    return organisation.id, [organisation, config]


def _work(rng: random.Random, sites: list[tuple[UUID, UUID, PlantConfig]]) -> Iterator[Any]:
    """Commands come, are accepted, relayed and executed among each other; now and then a config changes."""
    at_work: list[tuple[RelayedCommand, list[Any]]] = []
    number = 0
    while True:
        organization_id, plant_id, config = sites[rng.randrange(len(sites))]
        if number % 20 == 19:
            yield from _config_change(rng, config)
        issued = command(rng, organization_id, plant_id, number)
        issued.accept(datetime.now(UTC))
        issued.relay()
        issued.execute(datetime.now(UTC))
        at_work.append((issued, list(reversed(issued.collect_events()))))
        number += 1
        if len(at_work) >= AT_WORK:
            for _ in range(4):
                slot = rng.randrange(len(at_work))
                yield at_work[slot][1].pop()
                if not at_work[slot][1]:
                    at_work[slot] = at_work[-1]
                    at_work.pop()


def _config_change(rng: random.Random, config: PlantConfig) -> Iterator[Any]:
    change_id = UUID(int=rng.getrandbits(128), version=4)
    block: Any = {"from": "00:00", "to": "24:00", "pBatMin": -5.0, "pBatMax": 5.0, "socMin": 10.0, "socMax": 90.0}
    config.send_change(change_id, str(change_id), 3, [block], validate_only=False)
    answer = {"result_code": "OK", "message": None, "is_error": False, "is_terminal": True}
    config.answer_change(change_id, request_code="R1", **answer)  # type: ignore[arg-type]
    yield from config.collect_events()
