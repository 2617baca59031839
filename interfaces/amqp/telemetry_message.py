"""Telemetry and meter messages, decoded in one go by typed structs: thousands a second come this way."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from domain.vcp import MAX_BODY_BYTES, Unreadable
from projections.measurements import MAX_VALUE
from projections.meters import MeterReading
from projections.samples import Sample

Value = Annotated[float, Meta(ge=-MAX_VALUE, le=MAX_VALUE)] | None
Energy = Annotated[float, Meta(ge=0, le=MAX_VALUE)]
Time = Annotated[datetime, Meta(tz=True)]
Word = Annotated[str, Meta(max_length=255)] | None

MAX_METERS = 1000


class RealtimePayload(Struct, rename="camel", gc=False):
    """kW, %, kWh, °C; unknown fields, `devices` among them, are ignored."""

    grid_power_kw: Value = None
    fve_power_kw: Value = None
    battery_power_kw: Value = None
    consumption_power_kw: Value = None
    soc_percent: Value = None
    fve_reg: Value = None
    available_battery_energy_kwh: Value = None
    battery_temperature_celsius: Value = None
    current_operating_mode: Word = None
    data_quality: Literal["GOOD", "INTERPOLATED", "STALE", "MISSING"] | None = None


class Register(Struct, rename="camel", gc=False):
    """A meter's cumulative register, kWh."""

    meter_id: Annotated[str, Meta(min_length=1, max_length=200)]
    energy_kwh: Energy


class MeterPayload(Struct, rename="camel"):
    reading_at: Time
    meters: Annotated[list[Register], Meta(max_length=MAX_METERS)]


class Envelope(Struct, rename="camel", forbid_unknown_fields=True):
    """As domain.vcp.Envelope, in the form that is cheapest to decode."""

    version: Literal["1.1"]
    message_id: UUID
    timestamp: Time
    source: Annotated[str, Meta(min_length=1, max_length=255)]
    site_id: Annotated[str, Meta(min_length=1, max_length=255)]
    correlation_id: Word = None
    signature_algo: Word = None
    signature: Word = None
    signature_kid: Word = None


class RealtimeMessage(Envelope, kw_only=True):
    payload: RealtimePayload


class MeterMessage(Envelope, kw_only=True):
    payload: MeterPayload


_REALTIME = msgspec.json.Decoder(RealtimeMessage)
_METER = msgspec.json.Decoder(MeterMessage)


def read(kind: str, body: bytes) -> RealtimeMessage | MeterMessage:
    """A message of the kind that its routing key names; raises Unreadable."""
    if len(body) > MAX_BODY_BYTES:
        raise Unreadable("larger than 64 KiB")
    if b"\\u0000" in body:
        raise Unreadable("a string holds a NUL character")
    try:
        if kind == "realtime":
            return _REALTIME.decode(body)
        if kind == "meter":
            return _METER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(f"no {kind} message: {str(error)[:300]}") from None
    raise Unreadable("no such telemetry")


def measured_at(message: RealtimeMessage | MeterMessage) -> datetime:
    """When it was measured."""
    return message.timestamp if isinstance(message, RealtimeMessage) else message.payload.reading_at


def sample(plant_id: UUID, message: RealtimeMessage) -> Sample:
    payload = message.payload
    return Sample(
        plant_id,
        message.timestamp,
        payload.soc_percent,
        payload.grid_power_kw,
        payload.fve_power_kw,
        payload.consumption_power_kw,
        payload.battery_power_kw,
        payload.fve_reg,
        payload.available_battery_energy_kwh,
        payload.battery_temperature_celsius,
        payload.current_operating_mode,
        payload.data_quality,
    )


def readings(plant_id: UUID, message: MeterMessage) -> Iterator[MeterReading]:
    payload = message.payload
    for register in payload.meters:
        yield MeterReading(plant_id, register.meter_id, payload.reading_at, register.energy_kwh)
