"""The audit log: every filter tells what the log has, in pages of any size, and never of another organisation."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection

from domain.catalogue import EVENTS
from domain.errors import BadRequest
from infra.embedded import EmbeddedPostgres
from projections import audit_log
from projections.as_of import plan_as_of, plants_as_of, position_at, trading_config_as_of
from projections.audit_log import AuditEntry, AuditFilter, audit_page, audit_page_async
from projections.history import changes, shown, version_at
from projections.page import PageQuery
from tests.audit.histories import ACTORS, History
from tests.event_log.conftest import log_at
from tests.servers import database


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.bench)])
def history(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Any]:
    with database(postgres_server, migrated_template) as url, log_at(url) as log:
        yield History(log, request.param).live(45)


def read(history: History, wanted: AuditFilter, limit: int = 7) -> list[AuditEntry]:
    """Page by page to the end."""
    found: list[AuditEntry] = []
    with history.log.connect() as connection:
        while True:
            page = audit_page(connection, wanted, limit)
            assert len(page.data) <= limit
            found += page.data
            if page.meta.next is None:
                return found
            wanted = replace(wanted, before=page.meta.next)


def expected(history: History, wanted: AuditFilter) -> list[int]:
    """By a look at every event."""
    owners: dict[UUID, tuple[UUID, UUID | None]] = {}
    positions = []
    for position, stream, topic, state, metadata, at in history.log.execute(
        "SELECT position, stream_id, topic, state, metadata, recorded_at FROM events ORDER BY position"
    ):
        said = json.loads(state)
        if stream not in owners:
            organisation = UUID(said["organization_id"]) if "organization_id" in said else stream
            plant = stream if topic == "plant:created" else said.get("plant_id") and UUID(said["plant_id"])
            owners[stream] = (organisation, plant)
        organisation, plant = owners[stream]
        ids = {metadata["request_id"], metadata.get("correlation_id"), str(stream), said.get("message_id")}
        if (
            wanted.organization_id in (None, organisation)
            and wanted.plant_id in (None, plant)
            and wanted.topic in (None, topic, topic.partition(":")[0])
            and wanted.actor in (None, metadata["actor"])
            and (wanted.id is None or wanted.id in ids)
            and (wanted.since is None or at >= wanted.since)
            and (wanted.until is None or at <= wanted.until)
        ):
            positions.append(position)
    return positions[::-1]


def filters(history: History) -> Iterator[AuditFilter]:
    rows = history.log.execute("SELECT metadata ->> 'request_id', recorded_at FROM events ORDER BY position")
    middle, later = rows[len(rows) // 3][1], rows[len(rows) // 2][1]
    for kind in (None, "plant", "plant:created", "relayed-command", "relayed-command:executed", "queue-prefix"):
        yield AuditFilter(topic=kind)
    for actor in ACTORS:
        yield AuditFilter(actor=actor)
        yield AuditFilter(actor=actor, topic="plant", since=middle)
    for plant in history.plants:
        yield AuditFilter(plant_id=plant.id)
        yield AuditFilter(plant_id=plant.id, topic="relayed-command", until=later)
    yield AuditFilter(since=middle, until=later)
    yield AuditFilter(since=middle, until=middle - timedelta(microseconds=1))
    yield AuditFilter(id=rows[9][0])
    yield AuditFilter(id=str(uuid4()))


@pytest.mark.parametrize("scanned", [3, 100_000])
def test_every_filter_tells_what_the_log_has_and_of_nobody_else(
    history: History, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "SCANNED", scanned)
    for asked in filters(history):
        for organization_id in (None, *history.organisations):
            wanted = replace(asked, organization_id=organization_id)
            found = read(history, wanted)
            assert [entry.position for entry in found] == expected(history, wanted), wanted
            if organization_id is not None:
                assert {entry.organization_id for entry in found} <= {organization_id}


def test_pages_ahead_and_async_pages_are_the_same(history: History) -> None:
    wanted = AuditFilter(organization_id=history.organisations[0])

    async def ask() -> list[AuditEntry]:
        async with await AsyncConnection.connect(history.log.url, autocommit=True) as connection:
            return (await audit_page_async(connection, wanted, 100)).data

    with history.log.connect() as connection:
        ahead = audit_page(connection, wanted, 100, oldest_first=True).data
        assert asyncio.run(ask()) == audit_page(connection, wanted, 100).data
    assert [entry.position for entry in ahead] == expected(history, wanted)[::-1][:100]


def test_a_kind_that_there_is_not(history: History) -> None:
    with history.log.connect() as connection, pytest.raises(BadRequest):
        audit_page(connection, AuditFilter(topic="plan"), 10)


def test_no_secret_is_shown(history: History) -> None:
    assert not [entry for entry in read(history, AuditFilter()) if "secret_hash" in entry.state]


def test_as_of_is_what_the_read_models_said(history: History) -> None:
    async def check() -> None:
        async with await AsyncConnection.connect(history.log.url, autocommit=True) as connection:
            for moment in history.moments:
                position = await position_at(connection, moment.at)
                assert position == moment.position
                for organization_id in history.organisations:
                    decode = history.log.decode
                    config = await trading_config_as_of(connection, decode, organization_id, position)
                    [row] = [row for row in moment.rows["trading_configs"] if row[1] == organization_id]
                    assert (config.id, config.status, config.esm_api_url, config.updated_at) == (
                        *row[:3:2],
                        row[4],
                        row[11],
                    )
                    page = await plants_as_of(connection, decode, organization_id, PageQuery(limit=3), position)
                    mine = sorted(
                        (row[2], row[0], row[4]) for row in moment.rows["plants"] if row[1] == organization_id
                    )
                    assert page.meta.total == len(mine)
                    assert [(plant.id, plant.name) for plant in page.data] == [each[1:] for each in mine[:-4:-1]]

    asyncio.run(check())


def test_a_stream_as_of_a_time_is_the_fold_of_its_events_up_to_then(history: History) -> None:
    aggregates: list[Any] = [*history.plants, *history.commands, *history.configs.values()]
    with history.log.connect() as connection:
        for aggregate in aggregates[:20]:
            for moment in history.moments[::4]:
                events = [
                    row[0]
                    for row in history.log.execute(
                        "SELECT version FROM events WHERE stream_id = %s AND recorded_at <= %s", aggregate.id, moment.at
                    )
                ]
                found = version_at(connection, history.log.decode, aggregate.id, moment.at)
                assert (found is None) == (not events)
                if found is not None:
                    then: Any = history.log.events.repository.get(aggregate.id, version=max(events))
                    assert found.state == shown(then)


def test_a_diff_leads_from_nothing_to_the_state(history: History) -> None:
    config = next(iter(history.configs.values()))
    with history.log.connect() as connection:
        found = list(changes(connection, history.log.decode, config.id))
        now = version_at(connection, history.log.decode, config.id)
        half = history.moments[len(history.moments) // 2].at
        later = list(changes(connection, history.log.decode, config.id, since=half))
        earlier = list(changes(connection, history.log.decode, config.id, until=half))
    assert earlier + later == found
    assert now is not None
    assert [each.version for each in found] == list(range(1, now.version + 1))
    assert {each.actor for each in found} <= set(ACTORS)
    said: dict[str, Any] = {}
    for change in found:
        for name, (old, new) in change.fields.items():
            assert said.get(name) == old
            said[name] = new
    assert said["plant_id"] == str(config.plant_id)


def test_the_plan_in_force_is_the_last_one_applied(history: History) -> None:
    async def plan(config: Any, position: int) -> Any:
        async with await AsyncConnection.connect(history.log.url, autocommit=True) as connection:
            return await plan_as_of(connection, history.log.decode, config.plant_id, position)

    for config in list(history.configs.values())[:2]:
        for moment in history.moments[::10]:
            answered = [
                row
                for row in moment.rows["config_log"]
                if row[2] == config.plant_id and not row[10] and row[13] is not None
            ]
            found = asyncio.run(plan(config, moment.position))
            last = max(answered, key=lambda row: row[1], default=None)
            assert (found and found.version) == (last and last[6]["version"])


def test_every_kind_of_event_has_an_owner() -> None:
    """The view knows an owner by the first event of a stream."""
    for topic, event in EVENTS.items():
        if topic.endswith(":created") and topic != "organisation:created":
            assert "organization_id" in {field.name for field in fields(event)}
