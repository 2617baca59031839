"""A dead letter as the message that goes to `vcp.dead`: the body untouched, its story in the headers."""

from application.ports import DeadLetter, Message
from domain.topology import DEAD_QUEUE

_LONGEST_REASON = 2000


def message_of(dead_letter: DeadLetter) -> Message:
    """Goes through the default exchange, straight into the queue; the sender's own headers stay behind."""
    delivery = dead_letter.delivery
    headers = {
        "reason": dead_letter.reason[:_LONGEST_REASON],
        "request-id": dead_letter.request_id,
        "original-exchange": delivery.exchange,
        "original-routing-key": delivery.routing_key,
        "original-queue": delivery.queue,
    }
    return Message("", DEAD_QUEUE, delivery.body, delivery.message_id, headers)
