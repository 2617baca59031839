"""Erasing an organisation: nobody acts for it any more, and what is secret or personal can't be read ever again."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from application.event_log import EventLog, again_if_overtaken
from application.ports import Broker, SecretBox
from domain import topology
from domain.errors import BrokerUnreachable, NotFound
from domain.organisation import Organisation
from domain.trading_config import TradingConfig

ForgetTraces = Callable[[UUID], None]
"""Removes what is kept of an organisation beside the event log."""


@dataclass(frozen=True)
class Erasure:
    """Every step may be done again: an erasure that was interrupted is finished by the next try."""

    events: EventLog
    broker: Broker
    secrets: SecretBox
    forget_traces: ForgetTraces

    def erase(self, organization_id: UUID) -> bool:
        """Recorded twice: before anything is destroyed, and when it was. Whether its queues are gone, too: the workers'
        reconciler deletes them while we can't reach the broker."""
        config = self._close(organization_id)
        self.secrets.erase(organization_id)
        self.forget_traces(organization_id)
        self._record_erased(organization_id)
        try:
            self.broker.delete([queue.name for queue in topology.queues(config.queue_prefix)])
        except BrokerUnreachable:
            return False
        return True

    @again_if_overtaken
    def _close(self, organization_id: UUID) -> TradingConfig:
        """In one transaction: keys revoked, trading disabled, both for ever."""
        organisation = self.events.find(Organisation, organization_id)
        config = self.events.find(TradingConfig, TradingConfig.create_id(organization_id))
        if organisation is None or config is None:
            raise NotFound("No such organisation")
        organisation.close()
        config.close()
        self.events.save(organisation, config)
        return config

    @again_if_overtaken
    def _record_erased(self, organization_id: UUID) -> None:
        organisation = self.events.load(Organisation, organization_id)
        organisation.record_erased()
        self.events.save(organisation)
