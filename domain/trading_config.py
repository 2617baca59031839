"""An organisation's trading configuration: its partner, its credentials, whether trading is enabled, how syncs went."""

from typing import Literal
from uuid import UUID, uuid5

from eventsourcing.domain import Aggregate, event

from domain.errors import Invalid, OrgMembershipRequired, TradingConfigIncomplete

Status = Literal["ENABLED", "DISABLED"]


class TradingConfig(Aggregate):
    """One per organisation, from the organisation's creation on."""

    TOPIC = "trading-config"

    class Created(Aggregate.Created):
        TOPIC = "trading-config:created"
        organization_id: UUID
        queue_prefix: str

    class PartnerChanged(Aggregate.Event):
        """The client's id is veiled."""

        TOPIC = "trading-config:partner-changed"
        esm_api_url: str | None
        esm_client_id: str | None

    class CredentialsSet(Aggregate.Event):
        """The sealed secret lies outside the log, so that it can be forgotten."""

        TOPIC = "trading-config:credentials-set"
        secret_version: int

    class CredentialsCleared(Aggregate.Event):
        TOPIC = "trading-config:credentials-cleared"

    class QueuePrefixChanged(Aggregate.Event):
        TOPIC = "trading-config:queue-prefix-changed"
        queue_prefix: str

    class Enabled(Aggregate.Event):
        TOPIC = "trading-config:enabled"

    class Disabled(Aggregate.Event):
        TOPIC = "trading-config:disabled"

    class Closed(Aggregate.Event):
        """Its organisation is to be erased: it has no partner any more, and is never enabled again."""

        TOPIC = "trading-config:closed"

    class Synced(Aggregate.Event):
        """A sync that went otherwise than the one before it."""

        TOPIC = "trading-config:synced"
        synced: int
        errors: list[str]

    class SyncFailed(Aggregate.Event):
        TOPIC = "trading-config:sync-failed"
        error: str

    @event(Created)
    def __init__(self, organization_id: UUID, queue_prefix: str):
        self.organization_id = organization_id
        self.queue_prefix = queue_prefix
        self.status: Status = "DISABLED"
        self.esm_api_url: str | None = None
        self.esm_client_id: str | None = None
        self.secret_version: int | None = None
        self.last_sync: tuple[int, list[str]] | None = None
        self.last_sync_error: str | None = None
        self.closed = False

    @staticmethod
    def create_id(organization_id: UUID) -> UUID:
        return uuid5(organization_id, "trading-config")

    @property
    def has_esm_credentials(self) -> bool:
        return self.esm_client_id is not None and self.secret_version is not None

    @property
    def is_complete(self) -> bool:
        return self.esm_api_url is not None and self.has_esm_credentials

    @property
    def is_enabled(self) -> bool:
        return self.status == "ENABLED"

    def change_partner(self, esm_api_url: str | None, esm_client_id: str | None) -> None:
        self._refuse_if_closed()
        if self.is_enabled and (esm_api_url is None or esm_client_id is None):
            raise Invalid("The ESM URL and credentials can't be cleared while trading is enabled")
        if (esm_api_url, esm_client_id) != (self.esm_api_url, self.esm_client_id):
            self._partner_changed(esm_api_url, esm_client_id)

    def set_credentials(self, secret_version: int) -> None:
        """A secret that was sealed as this version; the caller seals only one that differs from the one before."""
        self._refuse_if_closed()
        if secret_version != self.secret_version:
            self._credentials_set(secret_version)

    def clear_credentials(self) -> None:
        if self.is_enabled:
            raise Invalid("The ESM URL and credentials can't be cleared while trading is enabled")
        if self.secret_version is not None:
            self._credentials_cleared()

    def change_queue_prefix(self, queue_prefix: str) -> None:
        self._refuse_if_closed()
        if queue_prefix == self.queue_prefix:
            return
        if self.is_enabled:
            raise Invalid("The queue prefix can't change while trading is enabled")
        self._queue_prefix_changed(queue_prefix)

    def enable(self) -> None:
        self._refuse_if_closed()
        if not self.is_complete:
            raise TradingConfigIncomplete
        if not self.is_enabled:
            self._enabled()

    def disable(self) -> None:
        if self.is_enabled:
            self._disabled()

    def close(self) -> None:
        self.disable()
        if not self.closed:
            self._closed()

    def record_sync(self, synced: int, errors: list[str]) -> None:
        if self.last_sync_error is not None or self.last_sync != (synced, errors):
            self._synced(synced, errors)

    def record_sync_failure(self, error: str) -> None:
        if self.last_sync_error != error:
            self._sync_failed(error)

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise OrgMembershipRequired

    @event(PartnerChanged)
    def _partner_changed(self, esm_api_url: str | None, esm_client_id: str | None) -> None:
        self.esm_api_url = esm_api_url
        self.esm_client_id = esm_client_id

    @event(CredentialsSet)
    def _credentials_set(self, secret_version: int) -> None:
        self.secret_version = secret_version

    @event(CredentialsCleared)
    def _credentials_cleared(self) -> None:
        self.secret_version = None

    @event(QueuePrefixChanged)
    def _queue_prefix_changed(self, queue_prefix: str) -> None:
        self.queue_prefix = queue_prefix

    @event(Enabled)
    def _enabled(self) -> None:
        self.status = "ENABLED"

    @event(Disabled)
    def _disabled(self) -> None:
        self.status = "DISABLED"

    @event(Closed)
    def _closed(self) -> None:
        self.closed = True
        self.esm_api_url = None
        self.esm_client_id = None
        self.secret_version = None

    @event(Synced)
    def _synced(self, synced: int, errors: list[str]) -> None:
        self.last_sync = (synced, errors)
        self.last_sync_error = None

    @event(SyncFailed)
    def _sync_failed(self, error: str) -> None:
        self.last_sync_error = error
