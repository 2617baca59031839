"""What the composition root hands to the HTTP edge: use cases, the read side, and settings as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from application.partner_logins import KeyMatcher, PartnerLogins
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.ports import SyncTurns
from application.trading import Trading
from projections.loading import Decode
from projections.positions import Positions

Network = IPv4Network | IPv6Network

Check = Callable[[], str | None]
"""Asks once, in a thread, within about 2 s: None when all is well, else a sentence for the operator."""


Standing = Callable[[], Mapping[str, object]]
"""How far the work is, told beside the checks: asked like one, and left out when it can't be told."""


@dataclass(frozen=True)
class IdentityProvider:
    """Whose JWTs are taken: by JWKS URL, PEM or shared secret. Without issuer and audience none are."""

    jwks_url: str | None = None
    public_key: str | None = None
    secret: str | None = field(default=None, repr=False)
    algorithms: tuple[str, ...] = ()
    issuer: str | None = None
    audience: str | None = None
    orgs_claim: str = "orgs"

    @property
    def pinned(self) -> tuple[str, ...]:
        """The algorithms that are taken; a token never chooses."""
        return self.algorithms or (("RS256",) if self.jwks_url or self.public_key else ("HS256",))


@dataclass(frozen=True)
class PartnerBroker:
    """Where a partner connects to over AMQP."""

    host: str
    port: int
    vhost: str


@dataclass(frozen=True)
class RateLimits:
    """Calls a minute, of each caller and of each organisation."""

    reads: int = 1200
    writes: int = 300
    syncs: int = 12


@dataclass(frozen=True)
class Streaming:
    """Of the streams of new samples: how many an organisation may have open in this process, how many samples may wait
    for one client, the seconds between heart-beats, and between two readings of the database. `patience_s` is how long
    any streamed answer, exports too, waits for a client that takes nothing; `page_turns` how many exports read at once,
    so that queries have connections."""

    per_organization: int = 100
    buffer: int = 1000
    heart_beat_s: float = 15.0
    every_s: float = 1.0
    patience_s: float = 30.0
    page_turns: int = 4


@dataclass(frozen=True)
class HttpServices:
    """`queries` comes closed: the app opens it; `checks` are what `/health/ready` asks, by name, and `standing` what it
    tells besides; `registry` is what
    `/metrics` shows, and gets the HTTP metrics; `threads` is how many commands run at once: the size of their pool.
    `partner_networks` is where the broker may ask about partners from; without any its questions have no routes."""

    trading: Trading
    plants: Plants
    plant_configs: PlantConfigs
    turns: SyncTurns
    queries: "AsyncConnectionPool[AsyncConnection[Any]]"
    positions: Positions
    decode: Decode
    key_hasher: KeyMatcher
    partner_broker: PartnerBroker
    identity_provider: IdentityProvider = field(default_factory=IdentityProvider)
    rate_limits: RateLimits = field(default_factory=RateLimits)
    checks: Mapping[str, Check] = field(default_factory=dict)
    standing: Standing = dict
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    threads: int = 40
    partner_networks: tuple[Network, ...] = ()
    streaming: Streaming = field(default_factory=Streaming)

    @property
    def partner_logins(self) -> PartnerLogins:
        return PartnerLogins(self.trading.events, self.key_hasher, self.partner_broker.vhost)
