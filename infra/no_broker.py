"""Stands where a broker should be when none is configured: whatever needs one is told so."""

from collections.abc import Sequence
from typing import NoReturn

from application.ports import Handle, Message
from domain.errors import BrokerUnreachable
from domain.topology import Topology


class NoBroker:
    def declare(self, topology: Topology) -> None:
        _refuse()

    def delete(self, queues: Sequence[str]) -> None:
        _refuse()

    def queue_exists(self, queue: str) -> bool:
        _refuse()

    def waiting(self, queues: Sequence[str]) -> dict[str, int]:
        _refuse()

    def publish(self, messages: Sequence[Message]) -> list[bool]:
        _refuse()

    def consumer(
        self, queues: set[str], handle: Handle, *, batch: int = 200, linger: float = 0.01, name: str = "consumer"
    ) -> NoReturn:
        _refuse()

    def close(self) -> None:
        """Nothing to close."""


def _refuse() -> NoReturn:
    raise BrokerUnreachable("No message broker is configured: set WATTLEDGER_AMQP_URL")
