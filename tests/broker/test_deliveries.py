"""Deliveries read whole are those that pika reads, however the stream is cut."""

from itertools import pairwise
from typing import Any

import pika
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from application.ports import Delivery
from infra.rabbitmq_deliveries import ConsumingConnection, Tagged, Taker, whole_deliveries
from infra.rabbitmq_session import delivered

CHANNEL = 3
QUEUE = "vcp.ingest"

words = st.text(max_size=20)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": words,
        "content_encoding": words,
        "headers": st.dictionaries(st.sampled_from(["x-death", "kind"]), st.integers(0, 9)),
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 9),
        "correlation_id": words,
        "reply_to": words,
        "expiration": words,
        "message_id": words,
        "timestamp": st.integers(0, 2**40),
        "app_id": words,
    },
)
messages = st.tuples(
    st.integers(1, 2**63), st.booleans(), words, words, properties, st.binary(max_size=60), st.integers(1, 100)
)


class Offline(ConsumingConnection):
    """Only its reader."""

    def __init__(self, taker: Taker) -> None:
        self.takers = {CHANNEL: taker}
        self._frame_buffer = b""
        self.bytes_received = 0
        self.heartbeats = 0
        self.content: Any = pika.channel.ContentFrameAssembler()
        self.taker = taker

    def _process_frame(self, value: Any) -> None:
        if isinstance(value, frame.Heartbeat):
            self.heartbeats += 1
        elif content := self.content.process(value):
            method, header, body = content
            self.taker.take([delivered(QUEUE, method.method, header.properties, body)])


@given(sent=st.lists(messages, max_size=6), cuts=st.lists(st.integers(0, 2000)), heartbeats=st.booleans())
def test_however_the_stream_is_cut(sent: list[Any], cuts: list[int], heartbeats: bool) -> None:
    stream = b"".join(on_the_wire(*each) + frame.Heartbeat().marshal() * heartbeats for each in sent)
    taken: list[Tagged] = []
    connection = Offline(Taker(QUEUE, taken.extend))
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for begin, end in pairwise(edges):
        connection._on_data_available(stream[begin:end])
    expected = [
        Tagged(
            tag, Delivery(QUEUE, exchange, key, body, given.get("message_id"), given.get("headers", {}), redelivered)
        )
        for tag, redelivered, exchange, key, given, body, _ in sent
    ]
    assert taken == expected
    assert connection.heartbeats == heartbeats * len(sent)
    assert connection.bytes_received == len(stream)
    assert connection._frame_buffer == b""


@given(st.lists(messages, min_size=1, max_size=3), st.integers(0, 10**6), st.integers(0, 255))
def test_a_spoilt_byte_breaks_no_reader(sent: list[Any], at: int, byte: int) -> None:
    stream = bytearray(b"".join(on_the_wire(*each) for each in sent))
    stream[at % len(stream)] = byte
    found, end = whole_deliveries(bytes(stream), CHANNEL, QUEUE)
    assert len(found) <= len(sent)
    assert end <= len(stream)


def test_ordinary_ones_are_read_whole_and_others_left_to_pika() -> None:
    plain: Any = (1, False, "vcp", "acme.event", {"message_id": "m-1"}, b"{}", 100)
    stream = on_the_wire(*plain)
    assert whole_deliveries(stream * 3, CHANNEL, QUEUE)[1] == 3 * len(stream)
    assert whole_deliveries(stream * 3, CHANNEL + 1, QUEUE) == ([], 0)
    in_pieces, empty = (on_the_wire(1, False, "vcp", "acme.event", {}, body, 1) for body in (b"{}", b""))
    headed = on_the_wire(1, False, "vcp", "acme.event", {"headers": {"x-death": []}}, b"{}", 100)
    for other in (in_pieces, empty, headed, stream[:-1]):
        found, end = whole_deliveries(stream + other, CHANNEL, QUEUE)
        assert (len(found), end) == (1, len(stream))


def on_the_wire(
    tag: int, redelivered: bool, exchange: str, key: str, given: dict[str, Any], body: bytes, piece: int
) -> bytes:
    """As a broker sends it whose frames hold `piece` bytes at most."""
    method = spec.Basic.Deliver("ctag1.1", tag, redelivered, exchange, key)
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    frames = [
        frame.Method(CHANNEL, method),
        frame.Header(CHANNEL, len(body), spec.BasicProperties(**given)),
        *(frame.Body(CHANNEL, each) for each in pieces),
    ]
    return b"".join(each.marshal() for each in frames)
