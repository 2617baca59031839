"""Every event that can be in the log, by its pinned topic: reading resolves only these."""

from typing import Any

from eventsourcing.domain import Aggregate, AggregateEvent

from domain.organisation import Organisation
from domain.plant import Plant
from domain.plant_alarm import PlantAlarm
from domain.plant_config import PlantConfig
from domain.queue_prefix import QueuePrefix
from domain.relayed_command import RelayedCommand
from domain.trading_config import TradingConfig

AGGREGATES: tuple[type[Aggregate], ...] = (
    Organisation,
    QueuePrefix,
    TradingConfig,
    Plant,
    PlantConfig,
    PlantAlarm,
    RelayedCommand,
)


def events_of(aggregate: type[Aggregate]) -> list[type[AggregateEvent]]:
    """The event classes nested in an aggregate, in the order they are written down."""
    return [
        value
        for name, value in vars(aggregate).items()
        if isinstance(value, type) and issubclass(value, AggregateEvent) and name != "Event"
    ]


def topic_of(event_class: type[Any]) -> str:
    """The name that an event class is stored under."""
    topic: str = event_class.TOPIC
    return topic


EVENTS: dict[str, type[AggregateEvent]] = {
    topic_of(event_class): event_class for aggregate in AGGREGATES for event_class in events_of(aggregate)
}

UNKNOWN = " is not in the catalogue of events"
"""After a topic: what is said of an event that only newer code knows."""
