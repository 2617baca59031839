"""What all intakes share: a batch is taken whole, and a bad message in it neither blocks nor spoils the others."""

import logging
from collections.abc import Sequence
from uuid import uuid4

import psycopg
from eventsourcing.persistence import IntegrityError
from prometheus_client import Counter, Histogram

from application.ports import DeadLetter, Delivery, Handle
from domain.errors import Unavailable
from domain.partner_rights import UNPROVEN
from domain.vcp import Unreadable

log = logging.getLogger(__name__)

INTERNAL_ERROR = "internal error"
_DEATH = "x-death"

MESSAGES = Counter("wattledger_messages_total", "Messages taken from the broker", ["intake"])
BATCHES = Histogram(
    "wattledger_batch_messages",
    "Messages taken at once",
    ["intake"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
DEAD_LETTERS = Counter("wattledger_dead_letters_total", "Messages moved to vcp.dead", ["intake"])

# What a database says while it is misdeployed or failing over, whatever the message: undefined table, column or
# function, a missing privilege, a read-only standby.
_NOT_READY = frozenset({"42P01", "42703", "42883", "42501", "25006"})
# A limit of the server's that this very message exceeds, although psycopg calls it operational.
_PROGRAM_LIMIT = "54"


def take(intake: str, batch: Sequence[Delivery], handle: Handle) -> list[DeadLetter]:
    """Handles a batch; on an unexpected error its halves, down to the one message that is then a dead letter.

    Raises what is transient: nothing is acked, and what was committed already is recognised when it comes again. What a
    queue dead-lettered is refused: whoever declared that queue chose the routing key, and no permission was asked."""
    dead_letters = [DeadLetter(each, UNPROVEN, request_id()) for each in batch if _DEATH in each.headers]
    dead_letters += _take(intake, [each for each in batch if _DEATH not in each.headers], handle)
    MESSAGES.labels(intake).inc(len(batch))
    BATCHES.labels(intake).observe(len(batch))
    DEAD_LETTERS.labels(intake).inc(len(dead_letters))
    return dead_letters


def request_id() -> str:
    return str(uuid4())


def is_transient(error: Exception) -> bool:
    """Whether the same message may well be handled later."""
    match error:
        case psycopg.Error(sqlstate=str(sqlstate)) if sqlstate.startswith(_PROGRAM_LIMIT):
            return False
        case psycopg.Error(sqlstate=str(sqlstate)) if sqlstate in _NOT_READY:
            return True
        case Unavailable() | IntegrityError() | psycopg.OperationalError() | psycopg.InterfaceError() | OSError():
            return True
    return False


def _take(intake: str, batch: Sequence[Delivery], handle: Handle) -> list[DeadLetter]:
    if not batch:
        return []
    try:
        return list(handle(batch))
    except Exception as error:
        if is_transient(error):
            raise
        if len(batch) > 1:
            half = len(batch) // 2
            return _take(intake, batch[:half], handle) + _take(intake, batch[half:], handle)
        return [_bury(intake, batch[0], error)]


def _bury(intake: str, delivery: Delivery, error: Exception) -> DeadLetter:
    if isinstance(error, Unreadable):
        return DeadLetter(delivery, str(error), request_id())
    letter = DeadLetter(delivery, INTERNAL_ERROR, request_id())
    # Only the error's kind and place: its text may repeat the partner's body.
    log.error(
        "message could not be handled",
        extra={"intake": intake, "request_id": letter.request_id, "error": type(error).__name__, "at": _place(error)},
    )
    return letter


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""
