"""The partner's commands, config requests and schedules: read, checked and handed to the relay."""

from collections.abc import Sequence
from dataclasses import dataclass

from application.context import Metadata, acting
from application.ports import DeadLetter, Delivery
from application.relay import CommandMessage, Relay
from application.sight import Sight
from domain import commands, topology, vcp
from domain.vcp import Unreadable
from interfaces.amqp import intake


@dataclass(frozen=True)
class Commands:
    """A `Handle` for the queues vcp.{p}.command, .config and .schedule of all enabled prefixes."""

    relay: Relay

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        with acting(Metadata(actor="amqp", source="amqp")):
            return intake.take("commands", batch, self._receive)

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
                dead_letters.append(DeadLetter(delivery, str(error), request_id))
            else:
                (emergencies if _is_emergency(message) else others).append(message)
        for messages in (emergencies, others):
            if messages:
                self.relay.receive(messages, sight)
        return dead_letters

    def _read(self, delivery: Delivery, request_id: str, sight: Sight) -> CommandMessage:
        prefix = topology.prefix_of(delivery.queue)
        if prefix is None:
            raise Unreadable("no queue for commands")
        if not delivery.routing_key.isprintable():
            raise Unreadable("the routing key is no text")
        message = CommandMessage(prefix, delivery.routing_key, vcp.read(delivery.body), request_id)
        self.relay.check(message, sight)
        return message


def _is_emergency(message: CommandMessage) -> bool:
    family = commands.family_of(message.type)
    return family is not None and family.command_type == "EMERGENCY"
