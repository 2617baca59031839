"""What a worker runs on; only the command line puts it together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from application.alarms import Alarms
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.ports import Broker
from application.publisher import Publisher
from application.relay import Relay
from projections.follower import Connect, Decode
from projections.partitions import RETENTION_DAYS


@dataclass(frozen=True)
class Intervals:
    """Seconds between two looks for work."""

    watch: float = 0.5
    sync: float = 10.0
    finish: float = 5.0
    expire: float = 1.0
    relay_again: float = 2.0
    reconcile: float = 180.0
    partitions: float = 3600.0


@dataclass(frozen=True)
class WorkerParts:
    """`connect` opens an autocommit connection, `decode` turns a stored event into its class, `due` names the
    organisations whose turn to sync has come. The broker stays the caller's to close."""

    relay: Relay
    publisher: Publisher
    plants: Plants
    plant_configs: PlantConfigs
    broker: Broker
    connect: Connect
    decode: Decode
    due: Callable[[], Sequence[UUID]]
    retention_days: int = RETENTION_DAYS
    alarms: Alarms | None = None
    intervals: Intervals = field(default_factory=Intervals)
