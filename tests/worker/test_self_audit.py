"""A worker checks itself once a day, and the metrics tell what it found."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from interfaces.http.audit_metrics import AuditMetrics
from projections.self_audit import last_findings
from tests.worker.site import QUICK, Site, until


def test_it_runs_when_it_is_due_and_its_findings_are_metrics(local: Site) -> None:
    local.worker(intervals=replace(QUICK, self_audit=0.1))
    assert local.rows("SELECT 1 FROM audit_checks") == []
    local.execute("UPDATE plants SET name = 'tampered'")
    local.execute("UPDATE events SET recorded_at = recorded_at - interval '2 days' WHERE position = 1")
    until(lambda: local.rows("SELECT 1 FROM audit_checks"), "the self-audit")
    registry = CollectorRegistry()
    with local.pool.connection() as connection:
        registry.register(AuditMetrics(lambda: last_findings(connection)))
        told = generate_latest(registry).decode()
    assert 'wattledger_audit_problem{subject="plants"} 1.0' in told
    assert 'wattledger_audit_problem{subject="command_log"} 0.0' in told
    assert 'wattledger_audit_checked_at{subject="plants"}' in told
