"""Metrics of the slots that follow the log, asked of the database at each scrape."""

from collections.abc import Callable, Iterable, Sequence

import psycopg
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.errors import Unavailable
from projections.slots import SlotStatus


class SlotMetrics(Collector):
    """None while the database can't be reached: readiness tells that."""

    def __init__(self, statuses: Callable[[], Sequence[SlotStatus]]) -> None:
        self._statuses = statuses

    def describe(self) -> Iterable[Metric]:
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        try:
            statuses = self._statuses()
        except (psycopg.Error, Unavailable):
            return []
        families = _families()
        for slot in statuses:
            families["position"].add_metric([slot.name], slot.position)
            families["lag"].add_metric([slot.name], slot.lag)
            families["seconds"].add_metric([slot.name], slot.lag_s)
            families["parked"].add_metric([slot.name], slot.parked_at is not None)
        return families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        "position": GaugeMetricFamily(
            "wattledger_slot_position", "The last event that it has applied", labels=["slot"]
        ),
        "lag": GaugeMetricFamily("wattledger_slot_lag_events", "How many events it is behind", labels=["slot"]),
        "seconds": GaugeMetricFamily(
            "wattledger_slot_lag_seconds", "The age of the oldest event that it has not applied", labels=["slot"]
        ),
        "parked": GaugeMetricFamily("wattledger_slot_parked", "1 when it stopped at a bad event", labels=["slot"]),
    }
