"""A running consumer: an IO thread keeps the connection and moves deliveries over, a worker thread handles them."""

import logging
import threading
from collections.abc import Callable, Sequence

from pika.connection import Parameters

from application.ports import DeadLetter, Handle, Message
from domain.errors import BrokerUnreachable
from domain.topology import DEAD_QUEUE
from infra.dead_letters import message_of
from infra.hand_over import HandOver
from infra.rabbitmq_connection import back_off
from infra.rabbitmq_session import Arrival, Session

log = logging.getLogger(__name__)

_STOP_SECONDS = 5


class RabbitConsumption:
    """At least once: a batch is acked when `handle` has returned and its dead letters are confirmed."""

    def __init__(
        self,
        parameters: Parameters,
        publish: Callable[[Sequence[Message]], list[bool]],
        queues: set[str],
        handle: Handle,
        *,
        batch: int,
        linger: float,
        name: str,
    ) -> None:
        self._parameters = parameters
        self._publish = publish
        self._queues = frozenset(queues)
        self._handle = handle
        self._batch = batch
        self._linger = linger
        self._name = name
        self._arrivals: HandOver[Arrival] = HandOver(lambda arrival: len(arrival.delivery.body))
        self._session: Session | None = None
        self._stopping = threading.Event()
        self._failures = 0  # of `handle`, in a row
        self._io = threading.Thread(target=self._stay_connected, name=f"amqp-{name}-io", daemon=True)
        self._worker = threading.Thread(target=self._work, name=f"amqp-{name}", daemon=True)

    def start(self) -> None:
        self._io.start()
        self._worker.start()

    def consume(self, queues: set[str]) -> None:
        """Deliveries of a queue that leaves the set are still handled and acked when they had arrived already."""
        self._queues = frozenset(queues)
        if self._session is not None:
            self._session.refresh()

    def stop(self) -> None:
        """Returns when the batch in hand is done and acked; what has not been handled goes back to its queue."""
        self._stopping.set()
        self._arrivals.close()
        if threading.current_thread() is self._worker:
            return  # called by `handle` itself: the worker ends the connection when the batch is done
        self._worker.join()
        self._io.join(_STOP_SECONDS)

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.is_open

    def _stay_connected(self) -> None:
        losses = 0
        while not self._stopping.is_set():
            try:
                losses = 1 if self._run_session() else losses + 1
            except Exception:
                losses += 1
                if not self._stopping.is_set():  # pika asserts when it is closed while it connects
                    log.exception("The IO thread of consumer %s failed and begins anew", self._name)
            self._stopping.wait(back_off(max(losses, self._failures)))

    def _run_session(self) -> bool:
        session = Session(self._parameters, self._arrivals, lambda: self._queues, self._batch, self._name)
        self._session = session
        if self._stopping.is_set():
            session.close()
        return session.run()

    def _work(self) -> None:
        while arrivals := self._arrivals.take(self._batch, self._linger):
            self._settle(arrivals)
        if self._session is not None:
            self._session.close()

    def _settle(self, arrivals: list[Arrival]) -> None:
        session = arrivals[0].session
        try:
            self._bury(self._handle([arrival.delivery for arrival in arrivals]))
        except Exception as error:
            self._failures += 1
            log.warning(
                "Consumer %s failed on %d messages (attempt %d), they will come again: %r",
                self._name, len(arrivals), self._failures, error, exc_info=self._failures == 1,
            )  # fmt: skip
            session.abandon()
        else:
            self._failures = 0
            session.ack(arrivals)

    def _bury(self, dead_letters: Sequence[DeadLetter]) -> None:
        if dead_letters and not all(self._publish([message_of(dead_letter) for dead_letter in dead_letters])):
            raise BrokerUnreachable(f"The queue {DEAD_QUEUE} does not exist")
