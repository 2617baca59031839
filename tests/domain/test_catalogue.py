"""The catalogue of events is the storage format: a topic or a field that changes breaks what is stored."""

from dataclasses import fields
from importlib import import_module
from pkgutil import iter_modules

import pytest
from eventsourcing.domain import Aggregate, AggregateEvent

import domain
from domain.catalogue import AGGREGATES, EVENTS, events_of, topic_of
from infra.event_mapper import EventMapper
from tests import examples
from tests.given import ID, Fact, given

GOLDEN = {
    "organisation:created": "name slug",
    "organisation:key-minted": "expires_at key_id name scopes secret_hash signing_key_version",
    "organisation:key-revoked": "key_id",
    "organisation:closed": "",
    "organisation:erased": "",
    "queue-prefix:created": "is_slug organization_id prefix",
    "queue-prefix:claimed": "organization_id",
    "queue-prefix:released": "",
    "trading-config:created": "organization_id queue_prefix",
    "trading-config:partner-changed": "esm_api_url esm_client_id",
    "trading-config:credentials-set": "secret_version",
    "trading-config:credentials-cleared": "",
    "trading-config:queue-prefix-changed": "queue_prefix",
    "trading-config:enabled": "",
    "trading-config:disabled": "",
    "trading-config:closed": "",
    "trading-config:synced": "errors synced",
    "trading-config:sync-failed": "error",
    "plant:created": "external_plant_id name organization_id",
    "plant:linked": "",
    "plant:described": "description",
    "plant:missed": "last_seen_at",
    "plant:unlinked": "",
    "plant:seen-again": "",
    "plant-config:created": "organization_id plant_id",
    "plant-config:change-sent": "change_id plant_id requested_by time_configs validate_only version",
    "plant-config:change-answered": "change_id is_error is_terminal message request_code result_code",
    "plant-alarm:created": "organization_id plant_id",
    "plant-alarm:raised": "constraint maximum measured_at minimum queue_prefix site_id value",
    "plant-alarm:cleared": "constraint measured_at queue_prefix raised_at site_id value",
    "relayed-command:created": "command_type correlation_id digest message_id organization_id payload plant_id"
    " queue_prefix routing_key sent_at signed site_id type",
    "relayed-command:rejected": "detail reason silent",
    "relayed-command:accepted": "expires_at",
    "relayed-command:repeated": "",
    "relayed-command:overtook": "",
    "relayed-command:relayed": "",
    "relayed-command:executed": "detail executed_at",
    "relayed-command:failed": "detail failed_at",
    "relayed-command:expired": "",
    "relayed-command:reported-late": "detail reported_at result",
}
"""Of each topic the fields that its event says, beside its stream, its version and its time."""

AGGREGATE_TOPICS = [
    "organisation",
    "queue-prefix",
    "trading-config",
    "plant",
    "plant-config",
    "plant-alarm",
    "relayed-command",
]

STREAMS: dict[str, tuple[Fact, ...]] = {
    "organisation": (
        examples.organisation_created(),
        examples.key_minted(),
        examples.key_revoked(),
        examples.closed(),
        examples.erased(),
    ),
    "queue-prefix": (examples.prefix_created(), examples.prefix_released(), examples.prefix_claimed(examples.RIVAL)),
    "trading-config": (
        examples.created(),
        examples.queue_prefix_changed(),
        examples.partner_changed(),
        examples.credentials_set(),
        examples.enabled(),
        examples.synced(2, ("Plant 3 of the list is malformed: name",)),
        examples.sync_failed(),
        examples.disabled(),
        examples.credentials_cleared(),
        examples.config_closed(),
    ),
    "plant": (
        examples.registered(),
        examples.linked(),
        examples.described(),
        examples.missed(examples.EXPIRY),
        examples.seen_again(),
        *[examples.missed()] * 3,
        examples.unlinked(),
    ),
    "plant-config": (
        examples.plant_config_created(),
        examples.change_sent(),
        examples.later(),
        examples.change_answered(),
    ),
    "plant-alarm": (examples.alarm_created(), examples.alarm_raised(), examples.alarm_cleared()),
}
"""A life of each aggregate with all of its events."""


def said(event_class: type[AggregateEvent]) -> str:
    noise = {"originator_id", "originator_version", "originator_topic", "timestamp"}
    return " ".join(sorted({field.name for field in fields(event_class)} - noise))


def test_topics_and_fields_are_what_is_stored() -> None:
    assert {topic: said(event_class) for topic, event_class in EVENTS.items()} == GOLDEN


def test_every_aggregate_of_the_domain_is_catalogued() -> None:
    modules = [import_module(f"domain.{module.name}") for module in iter_modules(domain.__path__)]
    written = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Aggregate) and value.__module__ == module.__name__
    }
    assert written == set(AGGREGATES)


def test_every_event_of_every_aggregate_is_in_it_under_a_topic_of_its_own() -> None:
    assert [aggregate.TOPIC for aggregate in AGGREGATES] == AGGREGATE_TOPICS  # type: ignore[attr-defined]
    classes = [event_class for aggregate in AGGREGATES for event_class in events_of(aggregate)]
    assert len(classes) == len({topic_of(event_class) for event_class in classes}) == len(EVENTS)
    for aggregate, topic in zip(AGGREGATES, AGGREGATE_TOPICS, strict=True):
        assert all(topic_of(event_class).startswith(f"{topic}:") for event_class in events_of(aggregate))


@pytest.mark.parametrize("topic", STREAMS)
def test_every_event_has_an_example(topic: str) -> None:
    shown = {topic_of(each.event_class) for each in STREAMS[topic]}
    assert shown == {known for known in EVENTS if known.startswith(f"{topic}:")}


@pytest.mark.parametrize("topic", STREAMS)
def test_a_stream_is_stored_and_read_back_as_it_was(topic: str) -> None:
    mapper = EventMapper()
    stream = given(*STREAMS[topic])
    expected = None
    for event in stream.events():
        expected = mapper.to_domain_event(mapper.to_stored_event(event)).mutate(expected)
    assert expected == stream.state()
    assert expected is not None
    assert expected.id == ID
