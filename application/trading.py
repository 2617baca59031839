"""An organisation's trading: its config, enable and disable."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from application.event_log import EventLog, again_if_overtaken
from application.ports import Broker, EsmClient, Partner, SecretBox
from domain import topology
from domain.errors import OrgMembershipRequired, PreconditionFailed
from domain.organisation import Organisation
from domain.queue_prefix import QueuePrefix
from domain.trading_config import TradingConfig

CLIENT_SECRET = "esm-client-secret"  # noqa: S105 - the name of a field of the secret box

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$")]


class TradingConfigChange(BaseModel):
    """What to change; an absent field stays, an explicit null clears."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    esm_api_url: Text | None = Field(
        default=None,
        description="ESM partner API base URL (public http/https only; private, loopback, link-local, and metadata "
        "addresses are rejected).",
        examples=["https://esm.example.com/api"],
    )
    esm_client_id: Text | None = Field(default=None, description="ESM OAuth client ID", examples=["wattledger"])
    esm_client_secret: Text | None = Field(
        default=None, description="ESM OAuth client secret (stored encrypted)", examples=["s3cr3t"], repr=False
    )
    queue_prefix: Annotated[str, StringConstraints(strict=True)] | None = Field(
        default=None,
        description="Override queue prefix (defaults to org slug). 2-50 lowercase alphanumeric or hyphens.",
        pattern=r"^[a-z0-9][a-z0-9-]{0,48}[a-z0-9]$",
        examples=["acme"],
    )


@dataclass(frozen=True)
class Trading:
    events: EventLog
    esm: EsmClient
    broker: Broker
    secrets: SecretBox

    def load(self, organization_id: UUID, version: int | None = None) -> TradingConfig:
        """As it is, or as it was at a version. Whose organisation is closed has none."""
        config = self.find(organization_id, version)
        if config is None or config.closed:
            raise OrgMembershipRequired
        return config

    def find(self, organization_id: UUID, version: int | None = None) -> TradingConfig | None:
        return self.events.find(TradingConfig, TradingConfig.create_id(organization_id), version)

    @again_if_overtaken
    def change_config(
        self, organization_id: UUID, change: TradingConfigChange, if_version: int | None = None
    ) -> TradingConfig:
        """Raises PreconditionFailed when the config is not at `if_version` any more."""
        config = self.load(organization_id)
        if if_version is not None and config.version != if_version:
            raise PreconditionFailed
        given, old_secret = change.model_fields_set, config.secret_version
        client_id = change.esm_client_id and self.secrets.veil(organization_id)(change.esm_client_id)
        if change.esm_api_url is not None:
            self.esm.check_url(change.esm_api_url)
        config.change_partner(
            change.esm_api_url if "esm_api_url" in given else config.esm_api_url,
            client_id if "esm_client_id" in given else config.esm_client_id,
        )
        prefixes = self._change_queue_prefix(config, change) if "queue_prefix" in given else []
        if "esm_client_secret" in given:
            self._change_secret(config, change.esm_client_secret)
        self.events.save(config, *prefixes)
        if old_secret is not None and config.secret_version != old_secret:
            # Only now that nothing names it; whoever crashes before leaves it to the next change.
            self.secrets.forget(organization_id, CLIENT_SECRET, (config.secret_version or old_secret + 1) - 1)
        return config

    @again_if_overtaken
    def enable(self, organization_id: UUID) -> TradingConfig:
        """Declares the queues before it records: a crash in between is mended by the next try."""
        config = self.load(organization_id)
        config.enable()
        self._declare(config)
        if self.events.save(config):
            # A disable that came in between has deleted them, and found nothing to record.
            self._declare(config)
        return config

    def disable(self, organization_id: UUID) -> TradingConfig:
        """Records before it deletes the queues: a crash in between is mended by the next try or the reconciler."""
        config = self._record_disabled(organization_id)
        self._delete_queues(config.queue_prefix)
        return config

    def mend_queues(self, organization_id: UUID) -> None:
        """Finishes what a killed process left undone."""
        config = self.load(organization_id)
        if config.is_enabled:
            self._declare(config)
        else:
            self._delete_queues(config.queue_prefix)

    def partner(self, config: TradingConfig) -> Partner | None:
        """Whom to call for this organisation, None while its config is incomplete or its secret was forgotten."""
        secret = self._secret(config)
        if config.esm_api_url is None or config.esm_client_id is None or secret is None:
            return None
        client_id = self.secrets.unveil(config.organization_id)(config.esm_client_id)
        return Partner(config.organization_id, config.esm_api_url, client_id, secret)

    def _declare(self, config: TradingConfig) -> None:
        self.broker.declare(topology.needed_by(config.queue_prefix))

    def _delete_queues(self, queue_prefix: str) -> None:
        self.broker.delete([queue.name for queue in topology.queues(queue_prefix)])

    @again_if_overtaken
    def _record_disabled(self, organization_id: UUID) -> TradingConfig:
        config = self.load(organization_id)
        config.disable()
        self.events.save(config)
        return config

    def _change_secret(self, config: TradingConfig, secret: str | None) -> None:
        if secret is None:
            config.clear_credentials()
        elif secret != self._secret(config):
            # Sealed before the event is saved: a crash in between leaves a secret that nothing names.
            config.set_credentials(self.secrets.seal(config.organization_id, CLIENT_SECRET, secret))

    def _secret(self, config: TradingConfig) -> str | None:
        """None when there is none, or none any more."""
        if config.secret_version is None:
            return None
        try:
            return self.secrets.open(config.organization_id, CLIENT_SECRET, config.secret_version)
        except KeyError:
            # Forgotten, or replaced since this config was loaded.
            latest = self.load(config.organization_id)
            return None if latest.secret_version == config.secret_version else self._secret(latest)

    def _change_queue_prefix(self, config: TradingConfig, change: TradingConfigChange) -> list[QueuePrefix]:
        """The prefixes that change hands; the old one is released, null goes back to the slug."""
        old = config.queue_prefix
        new = change.queue_prefix or self.events.load(Organisation, config.organization_id).slug
        config.change_queue_prefix(new)
        if new == old:
            return []
        # Nobody may inherit what is left in them, should a disable have failed half-way.
        self._delete_queues(old)
        claimed = self.events.find(QueuePrefix, QueuePrefix.create_id(new))
        if claimed is None:
            claimed = QueuePrefix(new, config.organization_id, False)
        else:
            claimed.claim(config.organization_id)
        released = self.events.load(QueuePrefix, QueuePrefix.create_id(old))
        released.release()
        return [claimed, released]
