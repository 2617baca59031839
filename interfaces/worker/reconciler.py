"""Makes the broker's queues match the trading configs, both ways, and says what it mended."""

import logging
from collections.abc import Iterable
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
        wanted = [topology.of_prefix(prefix) for prefix, status in prefixes if status == "ENABLED"]
        unwanted = [topology.of_prefix(prefix) for prefix, status in prefixes if status == "DISABLED"]
        declared = [name for each in (topology.shared(), *wanted) for name in self._declare(each)]
        deleted = self._delete_orphans(unwanted)
        if declared or deleted:
            log.warning("queues mended", extra={"declared": declared, "deleted": deleted})
        return declared + deleted

    def _declare(self, wanted: Topology) -> list[str]:
        """Also where nothing is missing: a binding may be."""
        missing = [queue.name for queue in wanted.queues if not self._broker.queue_exists(queue.name)]
        self._broker.declare(wanted)
        return missing

    def _delete_orphans(self, unwanted: Iterable[Topology]) -> list[str]:
        orphans = frozenset(
            queue.name for each in unwanted for queue in each.queues if self._broker.queue_exists(queue.name)
        )
        deleted = sorted(orphans & self._orphans)
        if deleted:
            self._broker.delete(deleted)
        self._orphans = orphans.difference(deleted)
        return deleted
