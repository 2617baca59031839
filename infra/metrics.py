"""What our adapters count, for Prometheus: appends, calls to ESMs, and the pools of connections."""

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

APPEND_SECONDS = Histogram(
    "wattledger_append_seconds",
    "How long a save of events takes, with its retries",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
ESM_CALLS = Counter("wattledger_esm_calls_total", "Calls to partners' ESMs", ["host", "outcome"])
REFUSALS = Counter("wattledger_refusals_total", "Commands that were refused", ["reason"])

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


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily]:
    return (
        GaugeMetricFamily("wattledger_pool_connections", "Open connections", labels=["pool"]),
        GaugeMetricFamily("wattledger_pool_waiting", "Who waits for a connection", labels=["pool"]),
        CounterMetricFamily("wattledger_pool_errors", "Who waited in vain", labels=["pool"]),
    )
