"""What all connections to RabbitMQ share: their parameters, their back-off, and a reader that no header can break."""

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika import frame, spec
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorException
from pika.exceptions import AMQPError

HEARTBEAT_SECONDS = 30
BLOCKED_SECONDS = 10
CONNECTION_ERRORS = (AMQPError, AMQPConnectorException, AMQPConnectionWorkflowFailed, OSError)

_FRAME_HEAD = struct.Struct(">BHL")
_CONTENT_HEAD = struct.Struct(">HHQ")


class Connection(pika.SelectConnection):
    """pika's own, mended in two places that have no public seam (which is one reason why its version is pinned).

    Its reader survives a header table that pika cannot decode, such as a sender's date in milliseconds: the message
    arrives without its properties, instead of ending the connection again and again. And its writer sends the frames
    of a message at once, and the messages of a batch, where pika makes a system call for each frame.
    """

    _frame_buffer: bytes
    _held: list[bytes] | None = None

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written inside goes out at the end, as one."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self._output_marshaled_frames(held)

    def _read_frame(self) -> tuple[int, frame.Frame | frame.ProtocolHeader | None]:
        try:
            return frame.decode_frame(self._frame_buffer)
        except Exception:
            kind, channel, size = _FRAME_HEAD.unpack_from(self._frame_buffer)
            if kind != spec.FRAME_HEADER:
                raise
            _, _, body_size = _CONTENT_HEAD.unpack_from(self._frame_buffer, _FRAME_HEAD.size)
            # That it was dead-lettered must not be hidden by a header that nobody can read.
            died = b"x-death" in self._frame_buffer[: _FRAME_HEAD.size + size]
            bare = frame.Header(channel, body_size, spec.BasicProperties(headers={"x-death": []} if died else None))
            return _FRAME_HEAD.size + size + spec.FRAME_END_SIZE, bare

    def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None:
        if self._held is None:
            super()._output_marshaled_frames([b"".join(marshaled_frames)])  # type: ignore[misc]  # not in the stubs
        else:
            self._held += marshaled_frames


def parameters(url: str, connect_timeout: float, name: str, heartbeat: int) -> pika.URLParameters:
    """One attempt within `connect_timeout` seconds; `name` is what the broker's own tools show."""
    result = pika.URLParameters(url)
    result.socket_timeout = result.stack_timeout = connect_timeout
    result.blocked_connection_timeout = BLOCKED_SECONDS
    result.connection_attempts = 1
    result.heartbeat = heartbeat
    result.client_properties = {"connection_name": name}
    return result


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row (from 1): jittered below a ceiling that grows from 0.2 to 2."""
    ceiling = min(2.0, 0.2 * 2 ** min(failures - 1, 8))
    return random.uniform(ceiling / 4, ceiling)
