"""What the plant gateways answer to commands: `{commandId, status, ts, detail?}` under `plant.{plantId}.ack`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from application.context import Metadata, acting, traceparent
from application.ports import DeadLetter, Delivery
from application.relay import PlantAck, Relay
from domain import vcp
from domain.vcp import Rfc3339, Unreadable
from interfaces.amqp import intake

ROUTING_KEY = re.compile(r"plant\.([0-9a-fA-F-]{36})\.ack")
LONGEST_DETAIL = 2000
MAX_BODY_BYTES = 64 * 1024


class _Body(BaseModel):
    """Unknown fields are ignored: gateways are of many makes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    command_id: UUID = Field(alias="commandId")
    status: Literal["RECEIVED", "EXECUTED", "FAILED"]
    ts: Rfc3339
    detail: Annotated[str, StringConstraints(strict=True)] | None = None


@dataclass(frozen=True)
class PlantAcks:
    """A `Handle` for the queue vcp.plant-acks."""

    relay: Relay

    def __call__(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        return intake.take("plant-acks", batch, self._acknowledge)

    def _acknowledge(self, batch: Sequence[Delivery]) -> list[DeadLetter]:
        dead_letters = []
        for delivery in batch:
            request_id = intake.request_id()
            try:
                ack = read(delivery)
                trace = traceparent(delivery.headers.get("traceparent"))
                with acting(Metadata(f"plant:{ack.plant_id}", "amqp", request_id, traceparent=trace)):
                    known = self.relay.acknowledge(ack)
                if not known:
                    raise Unreadable("that plant has no such command")
            except Unreadable as error:
                dead_letters.append(DeadLetter(delivery, str(error), request_id))
        return dead_letters


def read(delivery: Delivery) -> PlantAck:
    """Raises Unreadable; a long detail is cut, since it goes on to the partner."""
    key = ROUTING_KEY.fullmatch(delivery.routing_key)
    if key is None:
        raise Unreadable("the routing key names no plant")
    if len(delivery.body) > MAX_BODY_BYTES:
        raise Unreadable("larger than 64 kB")
    vcp.read_json(delivery.body)
    try:
        plant_id = UUID(key[1])
        body = _Body.model_validate_json(delivery.body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Unreadable(f"no acknowledgement: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    except ValueError:
        raise Unreadable("the routing key names no plant") from None
    return PlantAck(body.command_id, plant_id, body.status, body.ts, body.detail and body.detail[:LONGEST_DETAIL])
