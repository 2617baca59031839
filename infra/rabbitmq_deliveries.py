"""Deliveries read whole from what the broker sent: pika makes a dozen objects of each, and copies what comes behind it.

Source: AMQP 0-9-1, sections 2.3.5 (frames) and 4.2.6 (content), and its class `basic`.
"""

from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import Any, NamedTuple

from pika import spec

from application.ports import Delivery
from infra.rabbitmq_connection import Connection

# pika asks for 4 KB at a time: a system call, and a turn at Python's lock, for every five messages.
RECEIVED_AT_ONCE = 1 << 16

_BODY = Struct(">BHI")  # kind of frame, channel, size
_METHOD = Struct(">BHIHH")  # and class, method
_HEADER = Struct(">BHIHHQH")  # and class, weight, size of the body, which properties there are
_TAG = Struct(">QB")
_FRAME = 7 + spec.FRAME_END_SIZE
_DELIVER = (spec.FRAME_METHOD, *divmod(spec.Basic.Deliver.INDEX, 1 << 16))

_FLAGS = spec.BasicProperties
# The properties before the message's id, in their order: strings with their length, and single bytes.
_BEFORE_ID = (
    (_FLAGS.FLAG_CONTENT_TYPE, 0),
    (_FLAGS.FLAG_CONTENT_ENCODING, 0),
    (_FLAGS.FLAG_DELIVERY_MODE, 1),
    (_FLAGS.FLAG_PRIORITY, 1),
    (_FLAGS.FLAG_CORRELATION_ID, 0),
    (_FLAGS.FLAG_REPLY_TO, 0),
    (_FLAGS.FLAG_EXPIRATION, 0),
)


class Tagged(NamedTuple):
    """A delivery and the tag that it is acked by."""

    tag: int
    delivery: Delivery


class Taker(NamedTuple):
    """Who takes the deliveries of a channel that consumes one queue."""

    queue: str
    take: Callable[[Sequence[Tagged]], None]


class ConsumingConnection(Connection):
    """Hands whole deliveries of the channels in `takers` over at once; everything else goes pika's way."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.takers: dict[int, Taker] = {}
        super().__init__(*arguments, **named)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = RECEIVED_AT_ONCE  # noqa: SLF001 - of its class, which others share
        super()._proto_connection_made(transport)  # type: ignore[misc]  # not in the stubs

    def _on_data_available(self, data_in: bytes) -> None:
        self._frame_buffer += data_in
        while self._frame_buffer:
            channel = int.from_bytes(self._frame_buffer[1:3], "big")
            taker = self.takers.get(channel)
            deliveries, end = whole_deliveries(self._frame_buffer, channel, taker.queue) if taker else ([], 0)
            if taker and deliveries:
                self._trim_frame_buffer(end)  # type: ignore[attr-defined]  # nor are the others
                taker.take(deliveries)
                continue
            size, value = self._read_frame()
            if not value:
                return
            self._trim_frame_buffer(size)  # type: ignore[attr-defined]
            self._process_frame(value)  # type: ignore[attr-defined]


def whole_deliveries(buffer: bytes, channel: int, queue: str) -> tuple[list[Tagged], int]:
    """As many of this channel as the buffer begins with, and where they end.

    Not those that are not here whole, that come in pieces, are empty, or have headers: pika reads these.
    """
    found: list[Tagged] = []
    at = 0
    try:
        while (end := _end(buffer, at, channel)) > at:
            found.append(_read(buffer, at, queue))
            at = end
    except (error, IndexError):
        pass
    return found, at


def _end(buffer: bytes, at: int, channel: int) -> int:
    """Where the delivery that begins here ends; `at` when there is none for us."""
    kind, number, size, *method = _METHOD.unpack_from(buffer, at)
    if number != channel or (kind, *method) != _DELIVER:
        return at
    header = at + size + _FRAME
    kind, number, size, _, _, length, flags = _HEADER.unpack_from(buffer, header)
    if number != channel or kind != spec.FRAME_HEADER or flags & (_FLAGS.FLAG_HEADERS | 1):
        return at
    body = header + size + _FRAME
    kind, number, size = _BODY.unpack_from(buffer, body)
    end = body + size + _FRAME
    if number != channel or kind != spec.FRAME_BODY or size != length:
        return at
    whole = buffer[header - 1] == buffer[body - 1] == buffer[end - 1] == spec.FRAME_END
    return end if whole else at


def _read(buffer: bytes, at: int, queue: str) -> Tagged:
    header = at + _BODY.unpack_from(buffer, at)[2] + _FRAME
    at += _METHOD.size
    at += 1 + buffer[at]  # the consumer's tag: there is one on its channel
    tag, redelivered = _TAG.unpack_from(buffer, at)
    exchange, at = _text(buffer, at + _TAG.size)
    routing_key, _ = _text(buffer, at)
    _, _, size, _, _, length, flags = _HEADER.unpack_from(buffer, header)
    message_id = _message_id(buffer, header + _HEADER.size, flags) if flags & _FLAGS.FLAG_MESSAGE_ID else None
    body = header + size + _FRAME + _BODY.size
    return Tagged(
        tag,
        Delivery(
            queue, exchange, routing_key, buffer[body : body + length], message_id, redelivered=bool(redelivered & 1)
        ),
    )


def _message_id(buffer: bytes, at: int, flags: int) -> str:
    for flag, size in _BEFORE_ID:
        if flags & flag:
            at += size or 1 + buffer[at]
    return _text(buffer, at)[0]


def _text(buffer: bytes, at: int) -> tuple[str, int]:
    begin = at + 1
    end = begin + buffer[at]
    return buffer[begin:end].decode("utf-8", "replace"), end
