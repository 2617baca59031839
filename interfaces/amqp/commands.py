"""The partner's commands, config requests and schedules: read, checked and handed to the relay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from application.context import Metadata, acting, traceparent
from application.ports import DeadLetter, Delivery
from application.relay import CommandMessage, Relay
from application.sight import Sight
from domain import commands, topology, vcp
from domain.topology import EMERGENCY_QUEUE
from domain.vcp import Unreadable
from interfaces.amqp import intake


@dataclass(frozen=True)
class Commands:
    """A `Handle` for the queues vcp.{p}.command, .config and .schedule of all enabled prefixes, and for vcp.emergency.

    `pace` is asked before each batch but for emergencies: it returns when what was recorded before is nearly sent."""

    relay: Relay
    intake: str = "commands"
    pace: Callable[[], None] = lambda: None

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        with acting(Metadata(actor="amqp", source="amqp")):
            return intake.take(self.intake, batch, self._receive)

    def _receive(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        """Records what is readable: emergencies first, in a commit of their own, so that nothing delays them."""
        sight = self.relay.look()
        emergencies: list[CommandMessage] = []
        others: list[CommandMessage] = []
        dead_letters: list[DeadLetter] = []
        for delivery in batch:
            request_id = intake.request_id()
            try:
                message = self._read(delivery, request_id, sight)
            except Unreadable as error:
                if not self._has_copy(delivery, sight):
                    dead_letters.append(DeadLetter(delivery, str(error), request_id))
            else:
                (emergencies if _is_emergency(message) else others).append(message)
        if emergencies:
            self.relay.receive(emergencies, sight)
        if others:
            self.pace()
            self.relay.receive(others, sight)
        return dead_letters

    def _has_copy(self, delivery: Delivery, sight: Sight) -> bool:
        """Whether it lies in its organisation's own queue, too, which makes it a dead letter there."""
        if delivery.queue != EMERGENCY_QUEUE:
            return False
        prefix = topology.sender_of(delivery.queue, delivery.routing_key)
        return prefix is not None and sight.organization_id(prefix) is not None

    def _read(self, delivery: Delivery, request_id: str, sight: Sight) -> CommandMessage:
        overtaking = delivery.queue == EMERGENCY_QUEUE
        prefix = topology.sender_of(delivery.queue, delivery.routing_key)
        if prefix is None:
            raise Unreadable("no queue for commands")
        if not delivery.routing_key.isprintable():
            raise Unreadable("the routing key is no text")
        received, trace = vcp.read(delivery.body), traceparent(delivery.headers.get("traceparent"))
        message = CommandMessage(prefix, delivery.routing_key, received, request_id, overtaking, trace)
        self.relay.check(message, sight)
        return message


def _is_emergency(message: CommandMessage) -> bool:
    family = commands.family_of(message.type)
    return family is not None and family.command_type == "EMERGENCY"
