"""The bodies and queries of the edge that no read model has: rows of read models are bodies themselves."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from application.ports import EsmPlantConfig
from domain.day_plan import TimeBlock
from domain.errors import BadRequest
from domain.topology import VCP_EXCHANGE, Direction, queues
from interfaces.http.services import PartnerBroker
from projections.measurements import BadWindow, Window
from projections.page import ApiModel

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)")
_ALIASES = {"start": "from_", "end": "to", "interval": "bucket"}
_SPACE_BEFORE_OFFSET = re.compile(r"(?<=\d) (?=\d{2}:?\d{2}$)")


def _iso_8601(value: Any) -> Any:
    """Pydantic would take Unix times, too. A `+` that was not percent-encoded arrives as a space."""
    if isinstance(value, str) and not _DATE.match(value):
        raise ValueError("must be an ISO 8601 date and time")
    return _SPACE_BEFORE_OFFSET.sub("+", value) if isinstance(value, str) else value


Time = Annotated[datetime, BeforeValidator(_iso_8601)]
Minutes = Annotated[int, Field(ge=1, le=60)]


class RangeQuery(BaseModel):
    """A range of time; a naive time is UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: Time | None = Field(
        default=None, alias="from", description="Start time (ISO 8601); default: 24 h before `to`"
    )
    to: Time | None = Field(default=None, description="End time (ISO 8601); default: now")
    start: Time | None = Field(default=None, description="Alias of `from`")
    end: Time | None = Field(default=None, description="Alias of `to`")

    def require_one_name(self) -> None:
        """Raises BadRequest when one thing has both of its names."""
        twice = [alias for alias, name in _ALIASES.items() if {alias, name} <= self.model_fields_set]
        if twice:
            problems = [f"{alias}: is an alias of {_ALIASES[alias].rstrip('_')}, give one of them" for alias in twice]
            raise BadRequest("Validation error", errors=problems)


class WindowQuery(RangeQuery):
    """A range of time and the width of its buckets; a naive time is UTC."""

    bucket: Minutes = Field(default=5, description="Aggregation bucket size in minutes")
    interval: Minutes | None = Field(default=None, description="Alias of `bucket`")

    def window(self) -> Window:
        """Raises BadRequest: both names of one thing, or a range that no window is made of."""
        self.require_one_name()
        try:
            return Window.of(self.from_ or self.start, self.to or self.end, self.interval or self.bucket)
        except BadWindow as error:
            raise BadRequest("Validation error", errors=[f"from: {error}"]) from None
        except OverflowError:
            raise BadRequest("Validation error", errors=["from: the time range is out of the calendar"]) from None


class PlantConfigEntry(ApiModel):
    """What the ESM has now; `plantId` is the ESM's own id. Times are the plant's wall clock."""

    plant_id: str
    version: int
    config_enabled: bool
    esi_state: str | None
    time_configs: list[TimeBlock]

    @classmethod
    def of(cls, config: EsmPlantConfig) -> "PlantConfigEntry":
        return cls.model_validate(config, from_attributes=True)


class QueueDetails(ApiModel):
    """One queue; `direction` is seen from us: inbound is partner to us. `routingKey` lists its binding keys."""

    name: str
    direction: Direction
    routing_key: str
    description: str


class ConnectionDetails(ApiModel):
    """How a partner connects over AMQP."""

    host: str
    port: int
    vhost: str
    exchange: str
    queue_prefix: str
    auth_method: Literal["API_KEY"]
    auth_instructions: str
    queues: list[QueueDetails]

    @classmethod
    def of(cls, broker: PartnerBroker, slug: str, queue_prefix: str) -> "ConnectionDetails":
        return cls(
            host=broker.host,
            port=broker.port,
            vhost=broker.vhost,
            exchange=VCP_EXCHANGE,
            queue_prefix=queue_prefix,
            auth_method="API_KEY",
            auth_instructions=f"Log in as user {slug}, the organisation's slug; the password is an API key with the "
            "scope trading:connect. The queues exist once trading is enabled.",
            queues=[
                QueueDetails(
                    name=queue.name,
                    direction=queue.direction,
                    routing_key=", ".join(binding.routing_key for binding in queue.bindings),
                    description=queue.description,
                )
                for queue in queues(queue_prefix)
            ],
        )


class ErrorBody(ApiModel):
    """Every 4xx and 5xx. `code` is the contract; `details.errors` lists what is invalid, `details.reason` refines."""

    status_code: int
    error: str
    code: str
    message: str
    details: dict[str, Any]
