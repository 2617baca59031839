"""The partner's command families: which routing key is which type, what each payload must hold, what each requires."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from domain.relayed_command import CommandType
from domain.vcp import Rfc3339

Kilowatts = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Direction = Literal["IMPORT", "EXPORT"]
Priority = Literal["NORMAL", "HIGH", "EMERGENCY"]


class Payload(BaseModel):
    """Unknown fields are kept and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def deadline(self) -> datetime | None:
        """When the sender's word ends, None if it names no end."""
        return None


class Timed(Payload):
    """A payload that holds from a moment, and maybe until one."""

    valid_from: Rfc3339
    valid_until: Rfc3339 | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.valid_until is not None and self.valid_until <= self.valid_from:
            raise ValueError("validUntil must be later than validFrom")
        return self

    def deadline(self) -> datetime | None:
        return self.valid_until


class SiteSetpoint(Timed):
    """Power in kW, energy in kWh over `intervalMinutes`."""

    type: Literal["POWER", "ENERGY"]
    target_value_kw: Kilowatts | None = None
    target_value_kwh: Kilowatts | None = None
    interval_minutes: Annotated[int, Field(gt=0, strict=True)] | None = None
    direction: Direction
    include_consumption: Annotated[bool, Field(strict=True)] = False
    priority: Priority = "NORMAL"

    @model_validator(mode="after")
    def _has_its_target(self) -> Self:
        if self.type == "POWER" and self.target_value_kw is None:
            raise ValueError("POWER needs targetValueKw")
        if self.type == "ENERGY" and (self.target_value_kwh is None or self.interval_minutes is None):
            raise ValueError("ENERGY needs targetValueKwh and intervalMinutes")
        return self


class DeviceCommand(Payload):
    device_id: StrictStr = Field(min_length=1)
    action: StrictStr = Field(min_length=1)
    params: dict[str, JsonValue] = {}
    valid_until: Rfc3339 | None = None

    def deadline(self) -> datetime | None:
        return self.valid_until


class ModeChange(Timed):
    mode: StrictStr = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    reason: StrictStr | None = None


class Emergency(Payload):
    action: Literal["STOP", "RELEASE"]
    reason: StrictStr | None = None


class Slot(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    from_: Rfc3339 = Field(alias="from")
    to: Rfc3339
    direction: Direction
    target_value_kw: Kilowatts


class ScheduleCreate(Payload):
    schedule_id: StrictStr = Field(min_length=1)
    priority: Priority = "NORMAL"
    slots: list[Slot] = Field(min_length=1)

    @model_validator(mode="after")
    def _slots_do_not_overlap(self) -> Self:
        ordered = sorted(self.slots, key=lambda slot: slot.from_)
        if any(slot.to <= slot.from_ for slot in ordered):
            raise ValueError("a slot must end after it begins")
        if any(later.from_ < earlier.to for earlier, later in pairwise(ordered)):
            raise ValueError("slots must not overlap")
        return self

    def deadline(self) -> datetime | None:
        return max(slot.to for slot in self.slots)


class ScheduleCancel(Payload):
    schedule_id: StrictStr = Field(min_length=1)
    reason: StrictStr | None = None


class ConfigRequest(Payload):
    """Any object."""


@dataclass(frozen=True)
class Family:
    """One kind of command: how its routing key goes on after the prefix, and what its messages must hold."""

    key: str
    command_type: CommandType
    payload: type[Payload]
    signature_required: bool = False
    open_ended: bool = False
    """The key may go on: `command.device.inverter-1`."""

    def takes(self, key: str) -> bool:
        return key == self.key or (self.open_ended and key.startswith(f"{self.key}."))


FAMILIES = (
    Family("command.site-setpoint", "SITE_SETPOINT", SiteSetpoint),
    Family("command.device", "DEVICE_COMMAND", DeviceCommand, signature_required=True, open_ended=True),
    Family("command.mode", "MODE_CHANGE", ModeChange, signature_required=True),
    Family("command.emergency", "EMERGENCY", Emergency),
    Family("schedule.create", "SCHEDULE", ScheduleCreate, signature_required=True),
    Family("schedule.cancel", "SCHEDULE", ScheduleCancel, signature_required=True),
    Family("config", "CONFIG_REQUEST", ConfigRequest, open_ended=True),
)

FRESH_SIGNED = timedelta(minutes=5)
FRESH_UNSIGNED = timedelta(hours=24)
DEFAULT_LIFETIME = timedelta(minutes=15)


@lru_cache(1024)
def family_of(key: str) -> Family | None:
    """The family of a routing key without its prefix, None if we know none."""
    return next((family for family in FAMILIES if family.takes(key)), None)


def read_payload(family: Family, payload: dict[str, Any]) -> Payload | str:
    """The payload as its family's model, or one sentence that says what is wrong with it."""
    try:
        return family.payload.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else first["msg"]
