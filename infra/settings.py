"""All settings, from the environment: `WATTLEDGER_DATABASE_URL`, `WATTLEDGER_AMQP_URL` and so on."""

from datetime import UTC, tzinfo
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _cidrs(text: str) -> str:
    """Comma-separated networks, each with its host bits zero."""
    return ",".join(str(ip_network(part.strip())) for part in text.split(",") if part.strip())


def _zone(name: str) -> tzinfo:
    """UTC needs no time zone data, which slim machines have none of."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _time_zone(name: str) -> str:
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone on this machine (the package tzdata brings them)") from None
    return name


class Settings(BaseSettings):
    """The description of each field is what the README's table says."""

    model_config = SettingsConfigDict(env_prefix="WATTLEDGER_", extra="ignore", frozen=True)

    home: Path = Field(default=Path(".wattledger"), description="Where `up` keeps its data, keys and demo.json")
    http_host: str = Field(default="127.0.0.1", description="The address that the API listens on")
    http_port: int = Field(default=8000, ge=0, le=65535, description="The port that the API listens on")
    drain_seconds: float = Field(
        default=0,
        ge=0,
        le=300,
        description="How long `serve`, told to end, still answers, as not ready, for load balancers to go elsewhere",
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Where `work` shows `/metrics`; 0: nowhere")
    database_url: str | None = Field(
        default=None, repr=False, description="PostgreSQL 15 or later; unset: that of the running `up`"
    )
    amqp_url: str | None = Field(
        default=None, repr=False, description="RabbitMQ 3.10 or later; unset: that of the running `up`"
    )
    secret_keys: str | None = Field(
        default=None,
        repr=False,
        description="Keys that seal secrets, `id:base64` of 32 bytes; all of them wrap, the first is the one to stay",
    )
    esm_allowed: Annotated[str, NoDecode] = Field(
        default="", description="CIDRs and hosts of partners on private networks, comma-separated"
    )
    partner_amqp_host: str | None = Field(
        default=None, description="What connection-details tells partners; unset: ours"
    )
    partner_amqp_port: int | None = Field(default=None, description="The same for the port")
    partner_amqp_vhost: str | None = Field(default=None, description="The same for the virtual host")
    rabbitmq_auth_network: Annotated[str, AfterValidator(_cidrs)] = Field(
        default="", description="CIDRs that RabbitMQ may ask us about partner logins from; unset: it can't"
    )
    rabbitmq_management_url: str | None = Field(
        default=None,
        repr=False,
        description="RabbitMQ's management API, `http://user:password@host:15672`: where `doctor` sees its plugins",
    )
    jwt_jwks_url: str | None = Field(default=None, description="JWKS of the identity provider")
    jwt_public_key: str | None = Field(default=None, description="Its public key as PEM, instead of a JWKS")
    jwt_secret: str | None = Field(default=None, repr=False, description="Its shared secret, instead of either")
    jwt_algorithms: str = Field(default="", description="Pinned; unset: RS256 with a JWKS or PEM, HS256 with a secret")
    jwt_issuer: str | None = Field(default=None, description="Required `iss`; JWTs are refused while it is unset")
    jwt_audience: str | None = Field(default=None, description="Required `aud`; JWTs are refused while it is unset")
    jwt_orgs_claim: str = Field(default="orgs", description="The claim that maps organisation UUIDs to roles")
    reads_per_minute: int = Field(default=1200, ge=1, description="Rate limit per key and per organisation: GET")
    writes_per_minute: int = Field(default=300, ge=1, description="The same: POST")
    syncs_per_minute: int = Field(default=12, ge=1, description="The same: plant syncs")
    sync_minutes: float = Field(default=15, gt=0, description="Between two scheduled syncs, ± 20 %")
    retention_days: int = Field(default=1825, ge=1, description="How long measurements are kept")
    plant_time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="The wall clock of the plants' day plans, such as Europe/Prague; for alarms"
    )
    emergency_signature_required: bool = Field(default=False, description="Refuse unsigned emergency commands")
    fresh_signed_minutes: float = Field(
        default=5, gt=0, description="How far from now a message may be timed that must be signed"
    )
    fresh_unsigned_hours: float = Field(default=24, gt=0, description="The same for other commands")
    otlp_url: str | None = Field(
        default=None,
        description="Where traces go (OTLP over HTTP, `…:4318/v1/traces`); needs `wattledger[otel]`; unset: nowhere",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Least level logged")
    sandbox_port: int = Field(default=0, ge=0, le=65535, description="The port of `up`'s sandbox ESM; 0: a free one")

    @property
    def allowed_partners(self) -> list[str]:
        return [part.strip() for part in self.esm_allowed.split(",") if part.strip()]

    @property
    def plant_clock(self) -> tzinfo:
        return _zone(self.plant_time_zone)

    @property
    def auth_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(map(ip_network, self.rabbitmq_auth_network.split(",") if self.rabbitmq_auth_network else ()))

    def partner_broker(self, amqp_url: str | None) -> tuple[str, int, str]:
        """Host, port and virtual host that a partner connects to."""
        url = urlsplit(amqp_url or "amqp://127.0.0.1:5672/%2f")
        vhost = unquote(url.path.removeprefix("/")) or "/"
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
        return (
            self.partner_amqp_host or url.hostname or "127.0.0.1",
            self.partner_amqp_port or port,
            self.partner_amqp_vhost or vhost,
        )
