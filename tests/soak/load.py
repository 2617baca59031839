"""What clients, partners and plants do meanwhile, and what of it was confirmed to them."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec

from application.ports import DeadLetter, Delivery, Message
from domain import vcp
from domain.errors import BrokerUnreachable
from domain.topology import DEAD_QUEUE, Binding, Queue, Topology
from infra.rabbitmq import RabbitBroker
from infra.sandbox.partner import SandboxPartner
from projections.samples import Sample
from tests.measurements.plant_messages import realtime, sample

START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=20)
PLAN = {"from": "00:00", "to": "24:00", "pBatMin": -5, "socMin": 10, "socMax": 90}
AGAIN = {409, 425, 429, 503}
TIMEOUT_S = 8.0


@dataclass
class Books:
    """What was confirmed, what was seen, what was wrong; `successes` are (kind, begun, ended)."""

    successes: list[tuple[str, float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    configs: set[str] = field(default_factory=set)
    open_configs: set[str] = field(default_factory=set)
    changes: dict[float, int] = field(default_factory=dict)
    commands: dict[UUID, float] = field(default_factory=dict)
    results: dict[UUID, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    told: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    samples: set[Sample] = field(default_factory=set)
    dead: list[str] = field(default_factory=list)
    position: int = 0

    def success(self, kind: str, begun: float) -> None:
        self.successes.append((kind, begun, time.monotonic()))


@dataclass(frozen=True)
class Site:
    """Whom the load is about: an organisation that trades, and another that changes its config all the time."""

    plants: Sequence[tuple[UUID, str]]
    admin_key: str
    signing_key: str
    changer_key: str


class Load:
    """Threads from `start` to `stop`; then `drain` asks again what was never answered."""

    def __init__(self, site: Site, api_urls: Sequence[str], amqp_url: str, seed: int) -> None:
        self.site, self.books = site, Books()
        self.urls = list(api_urls)
        self.chance = random.Random(seed)
        self.stopping = threading.Event()
        self.broker = RabbitBroker(amqp_url, name="outside")
        self.partner = SandboxPartner(self.broker, "acme", site.signing_key)
        works: list[Callable[[], None]] = [self._command, self._measure]
        for number, url in enumerate(self.urls, 1):
            works += [_with(self._read, number, url), _with(self._change_config, number, url)]
        works.append(_with(self._change_plants, 1, self.urls[0]))
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def start(self) -> None:
        queues = [
            Queue(f"soak.{plant}", (Binding("plant", f"plant.{plant}.command"),)) for plant, _ in self.site.plants
        ]
        self.broker.declare(Topology(tuple(queues)))
        self.broker.consumer({queue.name for queue in queues}, self._gateway, name="gateway")
        self.broker.consumer({"vcp.acme.event.execution"}, self._executed, name="partner")
        self.broker.consumer({DEAD_QUEUE}, self._died, name="dead")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client hangs"

    def close(self) -> None:
        self.broker.close()

    def drain(self, seconds: float) -> None:
        """What a killed process had begun may be asked again after a minute."""
        end = time.monotonic() + seconds
        with self._client(self.urls[0], self.site.changer_key) as client:
            while self.books.open_configs and time.monotonic() < end:
                for name in list(self.books.open_configs):
                    self._ask_config(client, name, "drain")
                time.sleep(0.5)

    def _client(self, url: str, key: str) -> httpx.Client:
        headers = {"X-API-Key": key}
        return httpx.Client(base_url=f"{url}/api/v1/trading", headers=headers, trust_env=False, timeout=TIMEOUT_S)

    def _call(self, client: httpx.Client, method: str, path: str, kind: str, **options: Any) -> httpx.Response | None:
        """The answer if it is a 200; a refusal that says come again and a lost connection are none."""
        begun = time.monotonic()
        try:
            answer = client.request(method, path, **options)
        except httpx.TransportError:
            self.stopping.wait(0.05)
            return None
        self.books.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.books.success(kind, begun)
            self.books.position = max(self.books.position, int(answer.headers.get("X-Position", 0)))
            return answer
        if answer.status_code not in AGAIN:
            self.books.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        self.stopping.wait(0.05)
        return None

    def _read(self, number: int, url: str) -> None:
        plant = self.site.plants[0][0]
        paths = ["/config", "/connection-details", "/plants"]
        reads = ("command-log", "config-log", "telemetry", "telemetry/latest", "meters", "config")
        paths += [f"/plants/{plant}/{read}" for read in reads]
        with self._client(url, self.site.admin_key) as client:
            while not self.stopping.wait(0.02):
                path = paths[self.books.statuses.total() % len(paths)]
                # The plant's config is asked of the ESM, so its absence says nothing of the API.
                kind = "esm read" if path.endswith(f"{plant}/config") else f"read-{number}"
                self._call(client, "GET", path, kind)

    def _change_config(self, number: int, url: str) -> None:
        waiting: list[str] = []
        with self._client(url, self.site.changer_key) as client:
            while not self.stopping.wait(0.03):
                again = bool(waiting) and self.books.statuses.total() % 5 == 0
                name = waiting.pop(0) if again else str(uuid4())
                self.books.open_configs.add(name)
                if not self._ask_config(client, name, f"write-{number}"):
                    waiting.append(name)

    def _ask_config(self, client: httpx.Client, name: str, kind: str) -> bool:
        options = {"json": {"esmClientId": name}, "headers": {"Idempotency-Key": name}}
        answer = self._call(client, "POST", "/config", kind, **options)
        if answer is None:
            return False
        if answer.json()["esmClientId"] != name:
            self.books.wrong.append(f"{name} was answered {answer.text}")
        self.books.configs.add(name)
        self.books.open_configs.discard(name)
        return True

    def _change_plants(self, _: int, url: str) -> None:
        """Each plan is another, so that the log of changes tells how often each was taken."""
        waiting: list[int] = []
        turn = 0
        with self._client(url, self.site.admin_key) as client:
            while not self.stopping.wait(0.5):
                turn += 1
                if turn % 5 == 0:
                    self._call(client, "POST", "/plants/sync", "sync")
                asked = waiting.pop(0) if waiting and turn % 2 else turn
                if not self._change_plant(client, asked):
                    waiting.append(asked)

    def _change_plant(self, client: httpx.Client, number: int) -> bool:
        plant, power = self.site.plants[number % len(self.site.plants)][0], number / 100
        options = {"json": {"timeConfigs": [{**PLAN, "pBatMax": power}]}, "headers": {"Idempotency-Key": str(number)}}
        path = f"/plants/{plant}/config{'/validate' if number % 4 == 0 else ''}"
        answer = self._call(client, "POST", path, "plant change", **options)
        if answer is not None:
            self.books.changes[power] = answer.json()["id"]
        return answer is not None

    def _command(self) -> None:
        kinds = ("site-setpoint", "device", "mode", "site-setpoint", "emergency")
        while not self.stopping.wait(0.05):
            kind, message_id = kinds[len(self.books.commands) % len(kinds)], uuid4()
            site = self.chance.choice(self.site.plants)[1]
            body = self.partner.body(site, _payload(kind, message_id), messageId=str(message_id))
            begun = time.monotonic()
            self._publish([Message("vcp", f"acme.command.{kind}", body, str(message_id))])
            self.books.commands[message_id] = begun

    def _measure(self) -> None:
        step, sent = 0, [(self.site.plants[0][1], sample(self.site.plants[0][0], START))]
        while not self.stopping.wait(0.2):
            fresh = [
                (name, sample(plant, START + timedelta(seconds=10 * each)))
                for each in range(step, step + 10)
                for plant, name in self.site.plants
            ]
            step += 10
            chunk = fresh + self.chance.sample(sent, min(5, len(sent)))
            self.chance.shuffle(chunk)
            sent = (sent + fresh)[-2000:]
            self._publish([realtime("acme", *each) for each in chunk])
            self.books.samples.update(each for _, each in fresh)

    def _publish(self, messages: Sequence[Message]) -> None:
        """The same bytes until all are confirmed, as a sender does that may not lose any."""
        while True:
            try:
                if all(self.broker.publish(messages)):
                    return
            except BrokerUnreachable:
                pass
            time.sleep(0.1)

    def _gateway(self, batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        answers = []
        for told in batch:
            command = msgspec.json.decode(told.body)
            self.books.told[command["payload"]["soak"]][command["commandId"]] += 1
            for status in ("RECEIVED", "EXECUTED"):
                body = {"commandId": command["commandId"], "status": status, "ts": vcp.rfc3339(datetime.now(UTC))}
                answers.append(Message("plant", f"{told.routing_key[:-7]}ack", msgspec.json.encode(body)))
        if not all(self.broker.publish(answers)):
            raise BrokerUnreachable
        return ()

    def _executed(self, batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        for told in batch:
            result = msgspec.json.decode(told.body)
            message_id = UUID(result["payload"]["messageId"])
            self.books.results[message_id].add((result["messageId"], result["payload"]["status"]))
            if message_id in self.books.commands:
                self.books.success("command", self.books.commands[message_id])
        return ()

    def _died(self, batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        self.books.dead += [f"{each.routing_key}: {each.headers.get('reason')}" for each in batch]
        return ()


def _with(work: Callable[[int, str], None], number: int, url: str) -> Callable[[], None]:
    return lambda: work(number, url)


def _payload(kind: str, message_id: UUID) -> dict[str, Any]:
    now = vcp.rfc3339(datetime.now(UTC))
    known: dict[str, dict[str, Any]] = {
        "site-setpoint": {"type": "POWER", "targetValueKw": 1, "direction": "EXPORT", "validFrom": now},
        "device": {"deviceId": "inverter-1", "action": "RESTART", "params": {}},
        "mode": {"mode": "SELF_CONSUMPTION", "validFrom": now},
        "emergency": {"action": "RELEASE"},
    }
    return {**known[kind], "soak": str(message_id)}  # unknown fields are kept, so the plant can tell whose it is
