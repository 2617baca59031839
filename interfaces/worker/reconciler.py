"""Makes the broker's queues match the trading configs, both ways, and says what it mended."""

import logging
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from application.ports import Broker
from domain import topology
from domain.topology import Topology
from projections.trading_configs import queue_prefixes

log = logging.getLogger(__name__)


class Reconciler:
    """Queues of a disabled prefix are deleted when they are seen twice in a row: `enable` declares them a moment before
    it records, and the read model may lag behind `disable`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._orphans: frozenset[str] = frozenset()

    def reconcile(self, connection: Connection[Any]) -> list[str]:
        """The names of the queues that it declared or deleted; raises BrokerUnreachable."""
        prefixes = queue_prefixes(connection)
        wanted = [queue for prefix, status in prefixes if status == "ENABLED" for queue in topology.queues(prefix)]
        unwanted = [queue for prefix, status in prefixes if status == "DISABLED" for queue in topology.queues(prefix)]
        declared = self._declare(Topology((*topology.shared().queues, *wanted)))
        deleted = self._delete_orphans([queue.name for queue in unwanted])
        if declared or deleted:
            log.warning("queues mended", extra={"declared": declared, "deleted": deleted})
        return declared + deleted

    def _declare(self, wanted: Topology) -> list[str]:
        """Also where nothing is missing: a binding may be."""
        there = self._broker.waiting([queue.name for queue in wanted.queues])
        self._broker.declare(wanted)
        return [queue.name for queue in wanted.queues if queue.name not in there]

    def _delete_orphans(self, unwanted: Sequence[str]) -> list[str]:
        orphans = frozenset(self._broker.waiting(unwanted))
        deleted = sorted(orphans & self._orphans)
        if deleted:
            self._broker.delete(deleted)
        self._orphans = orphans.difference(deleted)
        return deleted
