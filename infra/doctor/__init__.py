"""What ails an installation: questions to its database, its broker, its keys and its settings, each with a remedy."""

from collections.abc import Iterator

from infra.bootstrap import Where
from infra.doctor.broker import broker_findings
from infra.doctor.database import database_findings, enabled_prefixes
from infra.doctor.finding import Finding
from infra.doctor.partners import partner_findings
from infra.doctor.plugins import plugins_finding
from infra.doctor.traces import traces_finding
from infra.settings import Settings

__all__ = ["Finding", "examine"]


def examine(where: Where, settings: Settings) -> Iterator[Finding]:
    """Asks one after the other and changes nothing that lasts; what can't be asked is left out, and its cause told."""
    yield from database_findings(where)
    yield from broker_findings(where.amqp_url, enabled_prefixes(where))
    yield plugins_finding(settings)
    yield traces_finding(settings)
    yield from partner_findings(where, settings)
