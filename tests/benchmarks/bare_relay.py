"""The baseline of the relay: bare pika that consumes messages and publishes others, with a window of confirms."""

from itertools import islice

import pika
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from application.ports import Message

WINDOW = 500


class _Mover:
    """Publishes what each delivery causes, acks the deliveries when the broker has confirmed all of it."""

    def __init__(self, url: str, queue: str, outgoing: list[list[Message]]) -> None:
        self._queue = queue
        self._outgoing = outgoing
        self._moved = 0
        self._last_tag = 0
        self._unconfirmed: set[int] = set()
        self._published = 0
        self._done = False
        self._connection = pika.SelectConnection(
            pika.URLParameters(url), on_open_callback=lambda _: self._connection.channel(on_open_callback=self._on_open)
        )

    def run(self) -> None:
        self._connection.ioloop.start()

    def _on_open(self, channel: Channel) -> None:
        self._channel = channel
        channel.confirm_delivery(self._on_confirm)
        channel.basic_qos(prefetch_count=WINDOW)
        channel.basic_consume(self._queue, self._on_message)

    def _on_message(self, channel: Channel, method: Basic.Deliver, _: BasicProperties, _body: bytes) -> None:
        self._last_tag = method.delivery_tag or 0
        for message in self._outgoing[self._moved]:
            properties = BasicProperties(delivery_mode=2, message_id=message.message_id)
            channel.basic_publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)
            self._published += 1
            self._unconfirmed.add(self._published)
        self._moved += 1

    def _on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        tag = frame.method.delivery_tag or 0
        confirmed = [each for each in self._unconfirmed if each <= tag] if frame.method.multiple else [tag]
        self._unconfirmed.difference_update(confirmed)
        if not self._unconfirmed:
            self._channel.basic_ack(self._last_tag, multiple=True)
            if self._moved == len(self._outgoing) and not self._done:
                self._done = True
                self._connection.add_on_close_callback(lambda *_: self._connection.ioloop.stop())
                self._connection.close()


def move(url: str, queue: str, outgoing: list[list[Message]]) -> None:
    """As many deliveries as there are lists of what they cause."""
    _Mover(url, queue, outgoing).run()


def move_one_by_one(url: str, queue: str, outgoing: list[list[Message]]) -> None:
    """The same, waiting for each confirm before anything else, as pika's blocking adapter does."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        consuming, publishing = connection.channel(), connection.channel()
        publishing.confirm_delivery()
        consuming.basic_qos(prefetch_count=WINDOW)
        deliveries = consuming.consume(queue)
        for (method, _, _), messages in zip(islice(deliveries, len(outgoing)), outgoing, strict=True):
            for message in messages:
                properties = BasicProperties(delivery_mode=2, message_id=message.message_id)
                key = message.routing_key
                publishing.basic_publish(message.exchange, key, message.body, properties, mandatory=True)
            assert method is not None
            consuming.basic_ack(method.delivery_tag or 0)
