"""One connection's life of a consumer: a channel per queue, so that a queue that is missing disturbs no other."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from pika.channel import Channel
from pika.connection import Parameters
from pika.exceptions import ConnectionClosedByClient, NoFreeChannels
from pika.spec import Basic, BasicProperties

from application.ports import Delivery
from infra.hand_over import HandOver
from infra.rabbitmq_connection import back_off
from infra.rabbitmq_deliveries import ConsumingConnection, Tagged, Taker

log = logging.getLogger(__name__)

_MOST_IN_MEMORY = 10_000
_QUIET_SECONDS = 5


class Arrival(NamedTuple):
    """A delivery on its way from the IO thread to the worker; its tag belongs to the subscription's channel."""

    subscription: "_Subscription"
    tag: int
    delivery: Delivery

    @property
    def session(self) -> "Session":
        return self.subscription.session


class Session:
    """`ack`, `refresh`, `abandon` and `close` may be called from any thread, the rest belongs to the one in `run`."""

    def __init__(
        self,
        parameters: Parameters,
        arrivals: "HandOver[Arrival]",
        wanted: Callable[[], frozenset[str]],
        batch: int,
        name: str,
    ) -> None:
        self.arrivals = arrivals
        self.name = name
        self._wanted = wanted
        self._batch = batch
        self._was_open = False
        self._subscriptions: dict[str, _Subscription] = {}
        self.connection = ConsumingConnection(
            parameters,
            on_open_callback=lambda _: self._on_open(),
            on_open_error_callback=lambda _, error: self._on_closed(error),
            on_close_callback=lambda _, error: self._on_closed(error),
        )

    def run(self) -> bool:
        """Returns when the connection has ended: whether it ever was open."""
        try:
            self.connection.ioloop.start()
        finally:
            self.arrivals.accept(None)
            self.connection.ioloop.close()
        return self._was_open

    @property
    def is_open(self) -> bool:
        return self.connection.is_open

    def refresh(self) -> None:
        """Subscribes to what is wanted by now, and to no more than that."""
        self.connection.ioloop.add_callback_threadsafe(self._subscribe)

    def ack(self, arrivals: Iterable[Arrival]) -> None:
        self.connection.ioloop.add_callback_threadsafe(partial(_ack, arrivals))

    def abandon(self) -> None:
        """Ends the connection so that all that is unacked comes again; nothing more is handed over meanwhile."""
        self.arrivals.accept(None)
        self.close()

    def close(self) -> None:
        self.connection.ioloop.add_callback_threadsafe(self._close)

    def prefetch(self) -> int:
        """Four batches, less where many queues together would fill the memory."""
        share = max(_MOST_IN_MEMORY // max(len(self._subscriptions), 1), 20)
        return min(4 * self._batch, share)

    def retry(self, subscription: "_Subscription") -> None:
        """Subscribes to this queue again, later, unless it is no longer wanted by then."""
        delay = back_off(subscription.attempt)
        self.connection.ioloop.call_later(delay, partial(self._again, subscription))

    def _on_open(self) -> None:
        self._was_open = True
        self.arrivals.accept(self)
        self._subscribe()
        self.connection.ioloop.call_later(1, self._renew)

    def _subscribe(self) -> None:
        if not self.connection.is_open:
            return
        wanted = self._wanted()
        for queue in self._subscriptions.keys() - wanted:
            self._subscriptions.pop(queue).end()
        missing = wanted - self._subscriptions.keys()
        self._subscriptions |= {queue: _Subscription(self, queue) for queue in missing}
        for queue in sorted(missing):
            self._subscriptions[queue].begin()

    def _renew(self) -> None:
        """Each second: a new channel for every queue that had messages and fell quiet.

        A quorum queue that is deleted and declared again within some 30 ms keeps its consumer without telling it; the
        broker then takes the new queue's first messages for those the channel has had and holds them back (seen on
        3.10). The end of the channel sets them free. A channel that had none has nothing to renew.
        """
        quiet = [subscription for subscription in self._subscriptions.values() if subscription.fell_quiet()]
        for subscription in quiet:
            subscription.end()
            self._subscriptions[subscription.queue] = _Subscription(self, subscription.queue)
            self._subscriptions[subscription.queue].begin()
        if self.connection.is_open:
            self.connection.ioloop.call_later(1, self._renew)

    def _again(self, failed: "_Subscription") -> None:
        if self._subscriptions.get(failed.queue) is failed and self.connection.is_open:
            self._subscriptions[failed.queue] = _Subscription(self, failed.queue, failed.attempt + 1)
            self._subscriptions[failed.queue].begin()

    def _on_closed(self, reason: BaseException) -> None:
        if not isinstance(reason, ConnectionClosedByClient):
            what = "lost its connection" if self._was_open else "can't connect"
            log.warning("Consumer %s %s to the AMQP broker: %r", self.name, what, reason)
        self.connection.ioloop.stop()

    def _close(self) -> None:
        if not (self.connection.is_closing or self.connection.is_closed):
            self.connection.close()


class _Subscription:
    """One queue on a channel of its own: begins, may fail and be replaced, or ends once all it delivered is acked."""

    def __init__(self, session: Session, queue: str, attempt: int = 1) -> None:
        self.session = session
        self.queue = queue
        self.attempt = attempt
        self._channel: Channel | None = None
        self._tag = ""
        self._unacked = 0
        self._delivered = 0
        self._delivered_before = 0
        self._quiet_seconds = 0
        self._ending = False
        self._cancelled = False

    def begin(self) -> None:
        try:
            self.session.connection.channel(on_open_callback=self._on_channel)
        except NoFreeChannels:
            log.error(
                "Consumer %s has no channel left for queue %s: more consumers are needed", self.session.name, self.queue
            )
            self.session.retry(self)

    def end(self) -> None:
        self._ending = True
        if self._channel is not None and self._channel.is_open:
            self._take_no_more(self._channel)  # what still comes pika gives back
            self._channel.basic_cancel(self._tag, callback=lambda _: self._on_cancel_ok())

    def ack(self, tag: int, count: int) -> None:
        """All up to this tag; of a channel that is gone nothing can be acked, and all of it comes again."""
        if self._channel is not None and self._channel.is_open:
            self._channel.basic_ack(tag, multiple=True)
            self._unacked -= count
            self._close_when_done()

    def fell_quiet(self) -> bool:
        """Asked once a second: whether there were deliveries, but none since a while, and all of them are acked."""
        quiet = self._delivered == self._delivered_before and self._delivered > 0 and not self._unacked
        self._quiet_seconds = self._quiet_seconds + 1 if quiet else 0
        self._delivered_before = self._delivered
        return self._quiet_seconds >= _QUIET_SECONDS

    def _on_channel(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_closed)
        channel.add_on_cancel_callback(lambda _: self._on_cancelled_by_broker())
        channel.basic_qos(prefetch_count=self.session.prefetch())
        self._tag = channel.basic_consume(self.queue, self._on_message, callback=lambda _: self._on_consuming())
        self.session.connection.takers[channel.channel_number] = Taker(self.queue, self._take)
        if self._ending:
            self.end()

    def _on_consuming(self) -> None:
        if self.attempt > 1:
            log.info("Consumer %s has queue %s again", self.session.name, self.queue)
        self.attempt = 1

    def _on_message(self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._take([delivered(self.queue, method, properties, body)])

    def _take(self, deliveries: Sequence[Tagged]) -> None:
        self._unacked += len(deliveries)
        self._delivered += len(deliveries)
        self.session.arrivals.put(self.session, self, [Arrival(self, *each) for each in deliveries])

    def _on_cancel_ok(self) -> None:
        self._cancelled = True
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._cancelled and not self._unacked and self._channel is not None and self._channel.is_open:
            self._channel.close()

    def _on_cancelled_by_broker(self) -> None:
        # The queue was deleted or moved to another node; the closing of the channel leads to the next attempt.
        if self._channel is not None and self._channel.is_open and not self._ending:
            self._channel.close()

    def _take_no_more(self, channel: Channel) -> None:
        self.session.connection.takers.pop(channel.channel_number, None)

    def _on_closed(self, channel: Channel, reason: BaseException) -> None:
        self._take_no_more(channel)
        if self._ending or not self.session.connection.is_open:
            return
        if self.attempt == 1:
            log.warning("Consumer %s can't consume queue %s for now: %s", self.session.name, self.queue, reason)
        self.session.retry(self)


def delivered(queue: str, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> Tagged:
    """What pika has read."""
    delivery = Delivery(
        queue,
        _text(method.exchange),
        _text(method.routing_key),
        body,
        None if properties.message_id is None else _text(properties.message_id),
        dict(properties.headers or {}),
        bool(method.redelivered),
    )
    return Tagged(method.delivery_tag or 0, delivery)


def _ack(arrivals: Iterable[Arrival]) -> None:
    """One multiple ack per channel: a batch holds each channel's deliveries in the order of their tags."""
    last: dict[_Subscription, tuple[int, int]] = {}
    for arrival in arrivals:
        _, count = last.get(arrival.subscription, (0, 0))
        last[arrival.subscription] = (arrival.tag, count + 1)
    for subscription, (tag, count) in last.items():
        subscription.ack(tag, count)


def _text(value: str | bytes | None) -> str:
    """pika leaves a short string as bytes when it is no UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
