"""Metrics of the last self-audit, asked of the database at each scrape."""

from collections.abc import Callable, Iterable, Sequence

import psycopg
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from domain.errors import Unavailable
from projections.self_audit import Finding


class AuditMetrics(Collector):
    """None before the first one, and while the database can't be reached."""

    def __init__(self, findings: Callable[[], Sequence[Finding]]) -> None:
        self._findings = findings

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterable[Metric]:
        try:
            findings = self._findings()
        except (psycopg.Error, Unavailable):
            return []
        problems, checked_at = _families()
        for each in findings:
            problems.add_metric([each.name], each.problem is not None)
            checked_at.add_metric([each.name], each.checked_at.timestamp())
        return problems, checked_at


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("wattledger_audit_problem", "1 when the last self-audit found it wrong", labels=["subject"]),
        GaugeMetricFamily("wattledger_audit_checked_at", "When it was last checked (Unix time)", labels=["subject"]),
    )
