"""A sandbox partner: sends signed commands over AMQP as a real one would."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import rfc8785

from application.ports import Broker, Message
from domain import vcp
from domain.topology import VCP_EXCHANGE


@dataclass(frozen=True)
class SandboxPartner:
    """`signing_key` is the one minted with its API key; without it nothing is signed."""

    broker: Broker
    queue_prefix: str
    signing_key: str | None = field(default=None, repr=False)
    source: str = "sandbox-partner"

    def send(self, type: str, site_id: str, payload: dict[str, Any], **envelope: Any) -> UUID:  # noqa: A002 - VCP's word
        """Sends a command such as `command.site-setpoint` and returns its message id; raises BrokerUnreachable."""
        message_id = UUID(envelope.setdefault("messageId", str(uuid4())))
        body = self.body(site_id, payload, **envelope)
        self.broker.publish([Message(VCP_EXCHANGE, f"{self.queue_prefix}.{type}", body, str(message_id))])
        return message_id

    def body(self, site_id: str, payload: dict[str, Any], **envelope: Any) -> bytes:
        """The signed message; `envelope` overrides any of its fields by their names in VCP."""
        message = {
            "version": vcp.VERSION,
            "messageId": str(uuid4()),
            "timestamp": vcp.rfc3339(datetime.now(UTC)),
            "source": self.source,
            "siteId": site_id,
            "payload": payload,
            **envelope,
        }
        if self.signing_key is not None:
            message["signatureAlgo"] = vcp.SIGNATURE_ALGO
            message["signature"] = vcp.sign(rfc8785.dumps(message), self.signing_key)
        return rfc8785.dumps(message)
