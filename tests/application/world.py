"""The use cases over fakes in memory, and the crashes that a test may script."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from eventsourcing.persistence import Recording

from application.event_log import EventLog
from application.organisations import Organisations
from application.plant_configs import PlantConfigs
from application.plants import Plants
from application.ports import Veil
from application.trading import Trading, TradingConfigChange
from domain.errors import BrokerUnreachable, OrgMembershipRequired
from domain.plant import Plant
from domain.topology import Topology, queues
from infra.event_mapper import EventMapper
from infra.local_broker import LocalBroker
from tests.examples import ACME, CLIENT, RIVAL, URL
from tests.fakes import FakeEsm
from tests.given import Fact, facts_in

SECRET = "canary-secret-5f1d"


class Crash(Exception):
    """The process ends here."""


def crash() -> None:
    raise Crash


@dataclass
class Script:
    """What happens around the next saves, one step each; None is nothing."""

    before_save: list[Callable[[], object] | None] = field(default_factory=list)
    after_save: list[Callable[[], object] | None] = field(default_factory=list)


class ScriptedLog(EventLog):
    """The event log in memory, its events stored as in production; `saves` counts those that recorded something."""

    def __init__(self) -> None:
        super().__init__(mapper=EventMapper())
        self.script = Script()
        self.saves = 0

    def save(self, *objs: Any, **kwargs: Any) -> list[Recording[UUID]]:
        _step(self.script.before_save)
        recordings = super().save(*objs, **kwargs)
        self.saves += bool(recordings)
        _step(self.script.after_save)
        return recordings


def _step(steps: list[Callable[[], object] | None]) -> None:
    step = steps.pop(0) if steps else None
    if step is not None:
        step()


class ScriptedBroker(LocalBroker):
    """Can't be reached while `down`; `crash_after` ends the process after the next declare or delete."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.crash_after = False

    def declare(self, topology: Topology) -> None:
        self._reach()
        super().declare(topology)
        self._end()

    def delete(self, queues: Sequence[str]) -> None:
        self._reach()
        super().delete(queues)
        self._end()

    def _reach(self) -> None:
        if self.down:
            raise BrokerUnreachable

    def _end(self) -> None:
        if self.crash_after:
            self.crash_after = False
            raise Crash


class MemorySecretBox:
    """A SecretBox that seals nothing and veils nothing."""

    def __init__(self) -> None:
        self.erased: set[UUID] = set()
        self.secrets: dict[tuple[UUID, str, int], str] = {}
        self._versions: Counter[tuple[UUID, str]] = Counter()

    def seal(self, organization_id: UUID, field: str, secret: str) -> int:
        self._versions[organization_id, field] += 1
        version = self._versions[organization_id, field]
        self.secrets[organization_id, field, version] = secret
        return version

    def open(self, organization_id: UUID, field: str, version: int) -> str:
        return self.secrets[organization_id, field, version]

    def forget(self, organization_id: UUID, field: str, up_to: int) -> None:
        for version in range(1, up_to + 1):
            self.secrets.pop((organization_id, field, version), None)

    def veil(self, organization_id: UUID) -> Veil:
        if organization_id in self.erased:
            raise OrgMembershipRequired
        return str

    def unveil(self, organization_id: UUID) -> Veil:
        return str

    def erase(self, organization_id: UUID) -> None:
        self.erased.add(organization_id)
        self.secrets = {place: secret for place, secret in self.secrets.items() if place[0] != organization_id}


class MemorySyncTurns:
    """Turns of one process; `taken` says whose turn it is."""

    def __init__(self) -> None:
        self.taken: set[UUID] = set()
        self.failures: Counter[UUID] = Counter()
        self._last: dict[UUID, datetime] = {}

    @contextmanager
    def take(self, organization_id: UUID) -> Iterator[None]:
        self.taken.add(organization_id)
        try:
            yield
        finally:
            self.taken.discard(organization_id)

    def succeeded(self, organization_id: UUID) -> None:
        self.failures[organization_id] = 0
        self._last[organization_id] = datetime.now(UTC)

    def failed(self, organization_id: UUID) -> None:
        self.failures[organization_id] += 1

    def last_success(self, organization_id: UUID) -> datetime | None:
        return self._last.get(organization_id)


class ReversingHasher:
    """A hash that a test can see through."""

    def hash(self, secret: str) -> str:
        return f"hash of {secret[::-1]}"


class World:
    """All use cases but the relay's, for the organisation acme; `news` tells what was recorded."""

    def __init__(self) -> None:
        self.events = ScriptedLog()
        self.esm = FakeEsm()
        self.broker = ScriptedBroker()
        self.secrets = MemorySecretBox()
        self.turns = MemorySyncTurns()
        self.organisations = Organisations(self.events, self.secrets, ReversingHasher())
        self.trading = Trading(self.events, self.esm, self.broker, self.secrets)
        self.plants = Plants(self.events, self.esm, self.trading, self.turns, self.linked_plants)
        self.plant_configs = PlantConfigs(self.events, self.esm, self.trading)
        self._read = 0
        self.organisations.create("acme", "Acme Energy", ACME)
        self.news()

    @property
    def script(self) -> Script:
        return self.events.script

    def news(self) -> list[Fact]:
        """What was recorded since it was last asked."""
        notifications = self.events.recorder.select_notifications(self._read + 1, 10_000)
        self._read += len(notifications)
        return facts_in([cast("Any", self.events.mapper.to_domain_event(each)) for each in notifications])

    def stored_bytes(self) -> bytes:
        """Every event as it lies in the store."""
        return b"\n".join(each.state for each in self.events.recorder.select_notifications(1, 10_000))

    def rival(self) -> UUID:
        """Another organisation."""
        self.organisations.create("rival", "Rival Power", RIVAL)
        self.news()
        return RIVAL

    def change(self, organization_id: UUID = ACME, /, **fields: Any) -> None:
        """Changes the trading config by the API's field names."""
        self.trading.change_config(organization_id, TradingConfigChange.model_validate(fields))

    def configure(self, organization_id: UUID = ACME) -> None:
        """The organisation has a partner and credentials."""
        self.change(organization_id, esmApiUrl=URL, esmClientId=CLIENT, esmClientSecret=SECRET)
        self.news()

    def enable(self) -> None:
        self.configure()
        self.trading.enable(ACME)
        self.news()

    def sync(self) -> None:
        """Acme's plants are synced."""
        self.configure()
        self.plants.sync(ACME)
        self.news()

    def queues(self, prefix: str = "acme") -> list[bool]:
        """Of each queue of a prefix whether it exists."""
        return [self.broker.queue_exists(queue.name) for queue in queues(prefix)]

    def plant(self, external_plant_id: str = "esm-001") -> Plant:
        return self.events.load(Plant, Plant.create_id(ACME, external_plant_id))

    def linked_plants(self, organization_id: UUID) -> list[UUID]:
        notifications = self.events.recorder.select_notifications(1, 10_000, topics=["plant:created"])
        plants = [self.events.load(Plant, cast("UUID", each.originator_id)) for each in notifications]
        return [plant.id for plant in plants if plant.linked and plant.organization_id == organization_id]
