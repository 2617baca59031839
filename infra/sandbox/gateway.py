"""A simulated plant's gateway: takes `{commandId, type, ts, payload}`, acts on the plant, and says how it went."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from infra.sandbox.physics import Measurements, PlantModel

REMEMBERED = 10_000


class GatewayCommand(msgspec.Struct, rename="camel"):
    command_id: str
    type: str
    ts: datetime
    payload: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """`detail` says why it failed."""

    command_id: str
    status: Literal["RECEIVED", "EXECUTED", "FAILED"]
    detail: str | None = None


class Gateway:
    """A command that comes again is answered again and done once. Safe for several threads."""

    def __init__(self, external_id: str, model: PlantModel) -> None:
        self.external_id = external_id
        self.model = model
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._latest_setpoint = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def step(self, now: datetime) -> Measurements:
        with self._lock:
            return self.model.step(now)

    def take(self, body: bytes, now: datetime) -> Iterator[Answer]:
        """RECEIVED, then how it ended; nothing for what is no command."""
        try:
            command = msgspec.json.decode(body, type=GatewayCommand)
        except (msgspec.MsgspecError, ValueError):
            return
        yield Answer(command.command_id, "RECEIVED")
        with self._lock:
            if command.command_id not in self._answers:
                self.model.step(now)
                self._answers[command.command_id] = self._do(command)
                if len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
            answer = self._answers[command.command_id]
        yield answer

    def _do(self, command: GatewayCommand) -> Answer:
        try:
            problem = self._apply(command)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"payload not understood: {type(error).__name__}"
        return Answer(command.command_id, "FAILED" if problem else "EXECUTED", problem)

    def _apply(self, command: GatewayCommand) -> str | None:
        """What keeps it from being done; config, modes, devices and schedules are taken and change nothing here."""
        payload = command.payload
        match command.type, payload.get("action"):
            case "command.emergency", "STOP":
                self.model.stop()
            case "command.emergency", "RELEASE":
                self.model.release()
            case "command.site-setpoint", _:
                return self._set(command)
        return None

    def _set(self, command: GatewayCommand) -> str | None:
        """An older one may come after a newer one, when the plant was offline between them."""
        if command.ts < self._latest_setpoint:
            return "superseded by a later setpoint"
        payload = command.payload
        kilowatts = payload["targetValueKw"] if payload["type"] == "POWER" else _mean_power(payload)
        until = payload.get("validUntil")
        followed = self.model.apply_setpoint(
            payload["direction"],
            kilowatts,
            include_consumption=payload.get("includeConsumption", False),
            valid_until=datetime.fromisoformat(until) if until else None,
        )
        if not followed:
            return "beyond the plant's power"
        self._latest_setpoint = command.ts
        return None


def _mean_power(payload: dict[str, Any]) -> float:
    """Of an ENERGY setpoint, kW."""
    return float(payload["targetValueKwh"] * 60 / payload["intervalMinutes"])
