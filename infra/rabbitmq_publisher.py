"""Publishes with a window of confirms in flight, on a connection and an IO thread of its own."""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from pika.channel import Channel
from pika.connection import Parameters
from pika.exceptions import ConnectionClosedByClient
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from application.ports import Message
from domain.errors import BrokerUnreachable
from infra.rabbitmq_connection import Connection

log = logging.getLogger(__name__)

WINDOW = 500
STALLED_SECONDS = 10.0
_CLOSE_SECONDS = 5
_MISSING_EXCHANGE = re.compile(r"no exchange '(.*)' in vhost")


class Publisher:
    """Connects at the first call and again at the next one after a loss; any number of threads may publish."""

    def __init__(self, parameters: Parameters, connect_timeout: float, window: int = WINDOW) -> None:
        self._parameters = parameters
        self._connect_timeout = connect_timeout
        self._window = window
        self._session: _Session | None = None
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        """Per message: did every queue take it, and was there one. Raises BrokerUnreachable unless all are answered."""
        if not messages:
            return []
        call = _Call(messages)
        self._live_session().submit(call)
        return call.result()

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _live_session(self) -> "_Session":
        # Callers who arrive while it connects share that one attempt, so none waits longer than the timeout.
        with self._lock:
            if self._session is None or self._session.ended.is_set():
                self._session = _Session(self._parameters, self._window)
                self._session.start()
            session = self._session
        if not session.ready.wait(self._connect_timeout + 0.5) or session.ended.is_set():
            raise BrokerUnreachable
        return session


class _Call:
    """The messages of one call and what became of each; touched by the IO thread until `settled`."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.taken = [True] * len(messages)
        self.failure: Exception | None = None
        self._unsettled = len(messages)
        self._settled = threading.Event()

    def settle_one(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._settled.set()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self._settled.set()

    def result(self) -> list[bool]:
        self._settled.wait()
        if self.failure is not None:
            raise self.failure
        return self.taken


class _Session:
    """One connection's life: everything but `start`, `submit` and `close` runs on its IO thread."""

    def __init__(self, parameters: Parameters, window: int) -> None:
        self.ready = threading.Event()
        self.ended = threading.Event()
        self._window = window
        self._lock = threading.Lock()  # so that no call slips into `_waiting` after the session has ended
        self._waiting: deque[tuple[_Call, int]] = deque()
        self._in_flight: dict[int, tuple[_Call, int]] = {}  # by delivery tag, in order
        self._last_tag = 0
        self._last_progress = time.monotonic()
        self._channel: Channel | None = None
        self._connection = Connection(
            parameters,
            on_open_callback=lambda _: self._open_channel(),
            on_open_error_callback=lambda _, error: self._end(error),
            on_close_callback=lambda _, error: self._end(error),
        )
        self._thread = threading.Thread(target=self._run, name="amqp-publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, call: _Call) -> None:
        with self._lock:
            if self.ended.is_set():
                raise BrokerUnreachable
            self._waiting.extend((call, index) for index in range(len(call.messages)))
        self._connection.ioloop.add_callback_threadsafe(self._pump)

    def close(self) -> None:
        self._connection.ioloop.add_callback_threadsafe(self._close_connection)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            self._connection.ioloop.call_later(1, self._watch)
            self._connection.ioloop.start()
        except Exception as error:
            log.exception("The AMQP publisher's IO thread failed")
            self._end(error)
        finally:
            self._connection.ioloop.close()

    def _open_channel(self) -> None:
        self._connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        self._channel = channel
        self._last_tag = 0
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_confirming())

    def _on_confirming(self) -> None:
        self.ready.set()
        self._pump()

    def _pump(self) -> None:
        if self._channel is None or not self._channel.is_open or not self.ready.is_set():
            return
        if not self._in_flight:
            self._last_progress = time.monotonic()
        with self._connection.batch():
            while self._waiting and len(self._in_flight) < self._window:
                call, index = self._waiting.popleft()
                try:
                    _send(self._channel, call.messages[index])
                except Exception as error:  # noqa: BLE001 - it cannot be encoded: the caller's error, not ours
                    call.fail(ValueError(f"This message can't be published: {error!r}"))
                else:
                    self._last_tag += 1
                    self._in_flight[self._last_tag] = (call, index)

    def _on_confirm(self, confirmation: Method[Basic.Ack | Basic.Nack]) -> None:
        method = confirmation.method
        tag = method.delivery_tag or 0
        tags = list(takewhile(lambda known: known <= tag, self._in_flight)) if method.multiple else [tag]
        for settled in tags:
            call, index = self._in_flight.pop(settled, (None, 0))
            if call is not None:
                # A queue that is full or has no leader refuses: that is for its own messages alone to suffer.
                call.taken[index] &= isinstance(method, Basic.Ack)
                call.settle_one()
        self._last_progress = time.monotonic()
        self._pump()

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        # A return carries no number. It precedes its confirm, so it belongs to the oldest equal message in flight;
        # of two that are equal down to the body it doesn't matter which.
        returned = (method.exchange, method.routing_key, properties.message_id, body)
        for call, index in self._in_flight.values():
            sent = call.messages[index]
            if call.taken[index] and (sent.exchange, sent.routing_key, sent.message_id, sent.body) == returned:
                call.taken[index] = False
                return

    def _on_channel_closed(self, _channel: Channel, reason: BaseException) -> None:
        """A missing exchange closes the channel under everybody: its messages are unroutable, the rest goes again."""
        missing = _MISSING_EXCHANGE.search(str(reason))
        self._channel = None
        if self.ended.is_set() or not self._connection.is_open:
            return
        if missing is None:
            self._end(reason)
            return
        again = []
        for call, index in self._in_flight.values():
            if call.messages[index].exchange == missing[1]:
                call.taken[index] = False
                call.settle_one()
            else:
                again.append((call, index))
        self._in_flight.clear()
        self._waiting.extendleft(reversed(again))
        self._open_channel()

    def _watch(self) -> None:
        """A peer that vanished without a word is noticed here, long before the heartbeat would."""
        if self._in_flight and time.monotonic() - self._last_progress > STALLED_SECONDS:
            self._end(TimeoutError(f"no confirm for {STALLED_SECONDS:.0f} s"))
        if not self.ended.is_set():
            self._connection.ioloop.call_later(1, self._watch)

    def _end(self, reason: BaseException) -> None:
        with self._lock:
            calls = {call for call, _ in [*self._in_flight.values(), *self._waiting]}
            self._in_flight.clear()
            self._waiting.clear()
            first = not self.ended.is_set()
            self.ended.set()
        if first and not isinstance(reason, ConnectionClosedByClient):
            log.warning("The AMQP publisher lost its connection (%r); %d calls fail", reason, len(calls))
        for call in calls:
            call.fail(BrokerUnreachable())
        self.ready.set()
        self._close_connection()

    def _close_connection(self) -> None:
        if self._connection.is_closed:
            self._connection.ioloop.stop()
        elif not self._connection.is_closing:
            self._connection.close()


def _send(channel: Channel, message: Message) -> None:
    properties = BasicProperties(
        delivery_mode=2,
        message_id=message.message_id,
        headers=message.headers or None,
        content_type="application/json",
        timestamp=int(time.time()),
    )
    channel.basic_publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)
