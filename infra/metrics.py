"""What our adapters count, for Prometheus: appends, calls to ESMs, commands, pools of connections, and queues."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.errors import BrokerUnreachable

APPEND_SECONDS = Histogram(
    "wattledger_append_seconds",
    "How long a save of events takes, with its retries",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
ESM_CALLS = Counter("wattledger_esm_calls_total", "Calls to partners' ESMs", ["host", "outcome"])
REFUSALS = Counter("wattledger_refusals_total", "Commands that were refused", ["reason"])
REPEATS = Counter("wattledger_repeated_commands_total", "Commands that had come before")
CONFLICTS = Counter("wattledger_append_conflicts_total", "Saves that another writer was faster than")

Stats = Callable[[], dict[str, int]]


class PoolMetrics(Collector):
    """Of connection pools, by name, as they say themselves."""

    def __init__(self, pools: dict[str, Stats]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterable[Metric]:
        connections, waiting, errors = families = _families()
        for name, stats in self._pools.items():
            told = stats()
            connections.add_metric([name], told.get("pool_size", 0))
            waiting.add_metric([name], told.get("requests_waiting", 0))
            errors.add_metric([name], told.get("requests_errors", 0))
        return families


class QueueMetrics(Collector):
    """Of queues that all organisations share; the broker's own metrics have the others."""

    def __init__(self, queues: Sequence[str], waiting: Callable[[Sequence[str]], dict[str, int]]) -> None:
        self._queues, self._waiting = queues, waiting

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily("wattledger_queue_messages", "Messages that wait to be taken", labels=["queue"])]

    def collect(self) -> Iterable[Metric]:
        """Nothing while the broker can't be reached: readiness tells that."""
        [family] = self.describe()
        assert isinstance(family, GaugeMetricFamily)
        with suppress(BrokerUnreachable):
            for queue, messages in self._waiting(self._queues).items():
                family.add_metric([queue], messages)
        return [family]


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
    return (
        GaugeMetricFamily("wattledger_pool_connections", "Open connections", labels=["pool"]),
        GaugeMetricFamily("wattledger_pool_waiting", "Who waits for a connection", labels=["pool"]),
        CounterMetricFamily("wattledger_pool_errors", "Who waited in vain", labels=["pool"]),
    )
