"""A partner's side of the AMQP contract, by amqp.md alone: a plain client that shares no code with the server."""

import hashlib
import hmac
import json
import logging
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import pika
import rfc8785
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, UnroutableError

READ_AHEAD = 2000
TICK_S = 0.1
AGAIN_S = 0.5
LOST = (AMQPError, OSError)


class NobodyListens(Exception):
    """No queue takes it: is trading enabled, and is the queue prefix right?"""


@dataclass
class PartnerClient:
    """Reads its organisation's queues and acks what answers its own messages; the rest goes back when it closes.

    One connection, for one thread; a lost one is made again within `patience` seconds."""

    url: str = field(repr=False)
    prefix: str
    site: str
    signing_key: str = field(repr=False)
    patience: float = 20.0
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)
    reconnects: int = 0

    def __enter__(self) -> Self:
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._mine: set[str] = set()
        self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._disconnect()

    def message(self, payload: dict[str, Any], *, signed: bool = True, **envelope: Any) -> dict[str, Any]:
        """A message for the site; `envelope` overrides its fields by their names in VCP."""
        message = {
            "version": "1.1",
            "messageId": str(uuid4()),
            "correlationId": str(uuid4()),
            "timestamp": rfc3339(datetime.now(UTC)),
            "source": "certification",
            "siteId": self.site,
            "payload": payload,
            **envelope,
        }
        return self.sign(message) if signed else message

    def sign(self, message: dict[str, Any]) -> dict[str, Any]:
        unsigned = {**message, "signatureAlgo": "HMAC-SHA256"}
        digest = hmac.new(bytes.fromhex(self.signing_key), rfc8785.dumps(unsigned), hashlib.sha256).digest()
        return {**unsigned, "signature": urlsafe_b64encode(digest).rstrip(b"=").decode()}

    def send(self, kind: str, message: dict[str, Any]) -> dict[str, Any]:
        """Published and confirmed, again after a lost connection: under one message id that is one command."""
        self._mine.add(message["messageId"])
        deadline = time.monotonic() + self.patience
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        key = f"{self.prefix}.{kind}"
        while True:
            try:
                self._channel.basic_publish("vcp", key, json.dumps(message).encode(), properties, mandatory=True)
            except UnroutableError:
                raise NobodyListens(f"No queue takes {key}: is trading enabled?") from None
            except LOST:
                if time.monotonic() > deadline:
                    raise
                self._reconnect(deadline)
            else:
                return message

    def replies(self, queue: str, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What came so far about a message: `status` are its acknowledgements, `execution` its results."""
        found = self.answers.get(queue, [])
        return [each for each in found if each.get("payload", {}).get("messageId") == message["messageId"]]

    def wait(self, holds: Callable[[], bool], seconds: float | None = None) -> bool:
        """Reads until it holds; False when it does not in time."""
        deadline = time.monotonic() + (self.patience if seconds is None else seconds)
        while not holds():
            if time.monotonic() > deadline:
                return False
            try:
                self._connection.process_data_events(TICK_S)
            except LOST:
                self._reconnect(deadline)
        return True

    def watch_telemetry(self) -> None:
        """By a queue of its own, which ends with the connection."""
        queue = f"vcp.{self.prefix}.event.telemetry.{uuid4().hex}"
        self._channel.queue_declare(queue, exclusive=True)
        self._channel.queue_bind(queue, "vcp", f"{self.prefix}.event.telemetry.#")
        self._consume(queue, "telemetry", lambda _: True)

    def cut(self) -> None:
        """The connection ends as if the network did."""
        transport = self._connection._impl._transport  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public
        transport._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001

    def _connect(self) -> None:
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 5
        parameters.heartbeat = 10
        self._connection = pika.BlockingConnection(parameters)
        try:
            self._open_channel()
        except LOST:
            self._disconnect()
            raise

    def _open_channel(self) -> None:
        self._channel: BlockingChannel = self._connection.channel()
        self._channel.confirm_delivery()
        self._channel.basic_qos(prefetch_count=READ_AHEAD)
        for kind in ("status", "execution"):
            self._consume(f"vcp.{self.prefix}.event.{kind}", kind, self._is_mine)

    def _disconnect(self) -> None:
        with suppress(*LOST):
            self._connection.close()

    def _consume(self, queue: str, kind: str, is_mine: Callable[[dict[str, Any]], bool]) -> None:
        def receive(channel: BlockingChannel, method: Any, _: Any, body: bytes) -> None:
            message = json.loads(body)
            if is_mine(message):
                self.answers.setdefault(kind, []).append(message)
                channel.basic_ack(method.delivery_tag)

        self._channel.basic_consume(queue, receive)

    def _is_mine(self, message: dict[str, Any]) -> bool:
        return message.get("payload", {}).get("messageId") in self._mine

    def _reconnect(self, deadline: float) -> None:
        self.reconnects += 1
        while True:
            self._disconnect()
            try:
                return self._connect()
            except LOST:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
