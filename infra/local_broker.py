"""The Broker port in memory: for tests and for a demo without RabbitMQ; what it holds ends with the process."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from application.ports import Consumption, Delivery, Handle, Message
from domain.errors import BrokerUnreachable
from domain.topology import Binding, Queue, Topology
from infra.dead_letters import message_of
from infra.rabbitmq_connection import back_off

log = logging.getLogger(__name__)


class LocalBroker:
    """Queues in memory behind one lock; consumers are threads that wait on it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._exchanges: set[str] = set()
        self._queues: dict[str, _LocalQueue] = {}
        self._consumptions: list[_LocalConsumption] = []
        self._order = itertools.count()

    def declare(self, topology: Topology) -> None:
        with self.changed:
            self._exchanges.update(topology.exchanges)
            for queue in topology.queues:
                self._queues.setdefault(queue.name, _LocalQueue(queue)).bindings.update(queue.bindings)
            self.changed.notify_all()

    def delete(self, queues: Sequence[str]) -> None:
        with self.changed:
            for queue in queues:
                self._queues.pop(queue, None)

    def queue_exists(self, queue: str) -> bool:
        return queue in self.waiting([queue])

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        with self.changed:
            return {queue: len(self._queues[queue].messages) for queue in queues if queue in self._queues}

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        with self.changed:
            routed = [self._route(message) for message in messages]
            self.changed.notify_all()
        return routed

    def consumer(
        self, queues: set[str], handle: Handle, *, batch: int = 200, linger: float = 0.01, name: str = "consumer"
    ) -> Consumption:
        consumption = _LocalConsumption(self, queues, handle, batch=batch, linger=linger, name=name)
        self._consumptions.append(consumption)
        consumption.start()
        return consumption

    def close(self) -> None:
        while self._consumptions:
            self._consumptions.pop().stop()

    def take(self, queues: Iterable[str], most: int) -> "list[tuple[_LocalQueue, _Stored]]":
        """Up to `most` messages, one of each queue in turn, the one whose turn is longest ago first; call it with
        `changed` held."""
        taken: list[tuple[_LocalQueue, _Stored]] = []
        sources = [self._queues[name] for name in queues if name in self._queues]
        while len(taken) < most and (ready := [queue for queue in sources if queue.peek()]):
            for queue in sorted(ready, key=lambda queue: queue.turn)[: most - len(taken)]:
                queue.turn = next(self._order)
                taken.append((queue, queue.pop()))
        return taken

    def _route(self, message: Message) -> bool:
        if message.exchange == "":
            targets = [queue for queue in self._queues.values() if queue.spec.name == message.routing_key]
        elif message.exchange in self._exchanges:
            targets = [queue for queue in self._queues.values() if queue.wants(message)]
        else:
            targets = []
        for queue in targets:
            queue.append(_Stored(time.monotonic(), message))
        return bool(targets)


class _LocalConsumption:
    """One thread that takes batches; a batch that fails goes back to where it was."""

    def __init__(
        self, broker: LocalBroker, queues: set[str], handle: Handle, *, batch: int, linger: float, name: str
    ) -> None:
        self._broker = broker
        self._queues = frozenset(queues)
        self._handle = handle
        self._batch = batch
        self._linger = linger
        self._name = name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"local-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def consume(self, queues: set[str]) -> None:
        with self._broker.changed:
            self._queues = frozenset(queues)
            self._broker.changed.notify_all()

    def stop(self) -> None:
        self._stopping.set()
        with self._broker.changed:
            self._broker.changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def connected(self) -> bool:
        return not self._stopping.is_set()

    def _work(self) -> None:
        failures = 0
        while taken := self._take():
            try:
                dead_letters = self._handle([stored.delivery(queue.spec.name) for queue, stored in taken])
                if not all(self._broker.publish([message_of(dead_letter) for dead_letter in dead_letters])):
                    raise BrokerUnreachable("The queue for dead letters does not exist")
                failures = 0
            except Exception as error:
                failures += 1
                log.warning(
                    "Consumer %s failed on %d messages (attempt %d), they will come again: %r",
                    self._name, len(taken), failures, error, exc_info=failures == 1,
                )  # fmt: skip
                self._give_back(taken)
                self._stopping.wait(back_off(failures))

    def _take(self) -> "list[tuple[_LocalQueue, _Stored]]":
        """Waits for the first message, then up to `linger` for a full batch; empty only when stopping."""
        changed, taken, deadline = self._broker.changed, list[tuple[_LocalQueue, _Stored]](), 0.0
        with changed:
            while not self._stopping.is_set():
                more = self._broker.take(self._queues, self._batch - len(taken))
                deadline = deadline or (time.monotonic() + self._linger if more else 0.0)
                taken += more
                left = deadline - time.monotonic()
                if taken and (len(taken) == self._batch or left <= 0):
                    return taken
                changed.wait(left if taken else None)
            self._give_back(taken)
            return []

    def _give_back(self, taken: "list[tuple[_LocalQueue, _Stored]]") -> None:
        with self._broker.changed:
            for queue, stored in reversed(taken):
                queue.give_back(stored)
            self._broker.changed.notify_all()


@dataclass(frozen=True)
class _Stored:
    at: float
    message: Message
    redelivered: bool = False

    def delivery(self, queue: str) -> Delivery:
        sent = self.message
        return Delivery(
            queue, sent.exchange, sent.routing_key, sent.body, sent.message_id, dict(sent.headers), self.redelivered
        )


@dataclass
class _LocalQueue:
    spec: Queue
    bindings: set[Binding] = field(default_factory=set)
    messages: deque[_Stored] = field(default_factory=deque)
    bytes: int = 0
    turn: int = 0

    def wants(self, message: Message) -> bool:
        return any(
            binding.exchange == message.exchange and matches(binding.routing_key, message.routing_key)
            for binding in self.bindings
        )

    def append(self, stored: _Stored) -> None:
        """The oldest go first when a bound is passed, as with x-overflow drop-head."""
        self.messages.append(stored)
        self.bytes += len(stored.message.body)
        most, most_bytes = self.spec.max_length, self.spec.max_bytes
        while (most is not None and len(self.messages) > most) or (most_bytes is not None and self.bytes > most_bytes):
            self.pop()

    def pop(self) -> _Stored:
        stored = self.messages.popleft()
        self.bytes -= len(stored.message.body)
        return stored

    def give_back(self, stored: _Stored) -> None:
        self.messages.appendleft(replace(stored, redelivered=True))
        self.bytes += len(stored.message.body)

    def peek(self) -> bool:
        """Whether a message waits that is not too old."""
        oldest_allowed = time.monotonic() - (self.spec.max_age_ms or float("inf")) / 1000
        while self.messages and self.messages[0].at < oldest_allowed:
            self.pop()
        return bool(self.messages)


@lru_cache(maxsize=4096)
def matches(pattern: str, routing_key: str) -> bool:
    """AMQP topic matching: `*` is one word, `#` any number of them, none included."""
    return _match(tuple(pattern.split(".")), tuple(routing_key.split(".")) if routing_key else ())


def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_match(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _match(rest, words[1:])
