"""A handle that keeps what it is given, can be told to fail or to wait, and can be waited on."""

import threading
from collections.abc import Callable, Sequence

from application.ports import DeadLetter, Delivery, Message

PATIENCE_S = 60.0


class Inbox:
    """Counts a delivery as received only when its batch did not fail."""

    def __init__(self, *, failures: int = 0) -> None:
        self.batches: list[list[Delivery]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.failed: list[Delivery] = []
        self._failures = failures
        self._changed = threading.Condition()

    def __call__(self, batch: Sequence[Delivery]) -> Sequence[DeadLetter]:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        with self._changed:
            if self._failures:
                self._failures -= 1
                self.failed += batch
                raise ConnectionError("the database is away")
            self.batches.append(list(batch))
            self._changed.notify_all()
        return ()

    @property
    def received(self) -> list[Delivery]:
        with self._changed:
            return [delivery for batch in self.batches for delivery in batch]

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.received]

    def wait_for(self, count: int, timeout: float = PATIENCE_S) -> list[Delivery]:
        """What was received, once there is so much of it."""
        self.wait_until(lambda received: len(received) >= count, timeout)
        return self.received

    def wait_until(self, holds: Callable[[list[Delivery]], bool], timeout: float = PATIENCE_S) -> None:
        with self._changed:
            received = [delivery for batch in self.batches for delivery in batch]
            fine = holds(received) or self._changed.wait_for(
                lambda: holds([delivery for batch in self.batches for delivery in batch]), timeout
            )
            assert fine, f"only {sum(map(len, self.batches))} messages arrived in {timeout} s"


def command(number: int = 0, prefix: str = "acme") -> Message:
    """A message for the command queue of this prefix, told apart by its number."""
    return Message("vcp", f"{prefix}.command.device", b"%d" % number, f"m-{number}")


def numbered(count: int, start: int = 0) -> list[Message]:
    return [command(number) for number in range(start, start + count)]
