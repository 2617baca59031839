"""Holds what a batch of telemetry measured against the plants' bands, once it is recorded."""

import logging
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from application.alarms import Alarms, Measured
from application.context import Metadata, acting
from domain.plant_alarm import PlantAlarm
from domain.plant_config import PlantConfig
from interfaces.amqp import intake
from projections.changed_streams import changed_streams
from projections.samples import Sample
from projections.telemetry import latest_times

log = logging.getLogger(__name__)

FRESH_S = 0.5
TOPICS = (PlantConfig.ChangeAnswered.TOPIC, PlantAlarm.Raised.TOPIC, PlantAlarm.Cleared.TOPIC)
UNUSABLE = frozenset({"STALE", "MISSING"})


class AlarmWatch:
    """In memory but for the few samples that may change an alarm: those are judged by the log."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._position: int | None = None
        self._checked_at = float("-inf")

    def look(self, connection: Connection[Any], samples: Sequence[Sample]) -> None:
        """Raises only what is transient: then the batch comes again, and is judged again. An error of ours must not
        make dead letters of telemetry that is fine."""
        try:
            self._look(connection, samples)
        except Exception as error:
            self._position = None
            if intake.is_transient(error):
                raise
            log.exception("alarms could not be judged", extra={"samples": len(samples)})

    def _look(self, connection: Connection[Any], samples: Sequence[Sample]) -> None:
        self._refresh(connection)
        suspects = self._alarms.suspects(_newest(samples))
        if not suspects:
            return
        newest = latest_times(connection, [each.plant_id for each in suspects])
        for each in suspects:
            # Another worker may have recorded a newer one: that one counts, and it is judged there.
            if each.time >= newest.get(each.plant_id, each.time):
                with acting(Metadata(actor=f"plant:{each.plant_id}", source="amqp")):
                    self._alarms.judge(each)

    def _refresh(self, connection: Connection[Any]) -> None:
        now = time.monotonic()
        if self._position is not None and now - self._checked_at < FRESH_S:
            return
        # Read before what it is about: what changes in between is seen next time.
        self._position, changed = changed_streams(connection, self._position, TOPICS)
        self._alarms.forget(changed)
        self._checked_at = now


def _newest(samples: Sequence[Sample]) -> list[Measured]:
    """Of each plant; what it says is no measurement of that moment does not count."""
    newest: dict[UUID, Sample] = {}
    for sample in samples:
        if sample.data_quality not in UNUSABLE:
            known = newest.get(sample.plant_id)
            if known is None or sample.time > known.time:
                newest[sample.plant_id] = sample
    return [Measured(each.plant_id, each.time, each.invertor_power, each.soc) for each in newest.values()]
