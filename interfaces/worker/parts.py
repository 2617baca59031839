"""What a worker runs on; only the command line puts it together."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
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
    self_audit: float = 3600.0


class Runs(Protocol):
    """What works in a thread of its own until it is told to stop; `active` while it does and no other worker's."""

    active: threading.Event

    def run(self, stop: threading.Event) -> None: ...


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
    sealer: Runs | None = None
    intervals: Intervals = field(default_factory=Intervals)
