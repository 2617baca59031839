"""Scenarios that a partner certifies an installation by: each sends commands and compares what comes back."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.sandbox.partner_client import PartnerClient, rfc3339

QUIET_S = 2.0
POWER_KW = 1.0
TELEMETRY = "telemetry"


@dataclass(frozen=True)
class Check:
    """One thing that was expected, and what was seen instead or indeed."""

    step: str
    expected: str
    seen: str

    @property
    def passed(self) -> bool:
        return self.expected == self.seen


@dataclass
class Run:
    """One scenario on its way: what it sends by, what it does to the broker, and what it found."""

    client: PartnerClient
    disturb: Callable[[], None]
    checks: list[Check] = field(default_factory=list)

    def send(self, kind: str, payload: dict[str, Any], **envelope: Any) -> dict[str, Any]:
        return self.client.send(kind, self.client.message(payload, **envelope))

    def found(self, step: str, expected: str, seen: str) -> None:
        self.checks.append(Check(step, expected, seen))

    def acknowledged(self, step: str, message: dict[str, Any], *expected: str) -> None:
        """With these, in this order, in its correlation."""
        self.client.wait(lambda: len(self.client.replies("status", message)) >= len(expected))
        seen = [_ack(reply, message) for reply in self.client.replies("status", message)]
        self.found(f"{step}: acknowledged", ", ".join(expected), ", ".join(seen) or "nothing")

    def ended(self, step: str, message: dict[str, Any], expected: str) -> None:
        """With one result; the same one again is no second one."""
        self.client.wait(lambda: bool(self.client.replies("execution", message)))
        results = {each["messageId"]: _result(each, message) for each in self.client.replies("execution", message)}
        self.found(f"{step}: ended", expected, ", ".join(results.values()) or "nothing")

    def quiet(self, step: str, message: dict[str, Any], replies: tuple[str, ...] = ("status", "execution")) -> None:
        self.client.wait(lambda: any(self.client.replies(each, message) for each in replies), QUIET_S)
        seen = [str(reply["payload"]["status"]) for each in replies for reply in self.client.replies(each, message)]
        self.found(f"{step}: no word of {' or '.join(replies)}", "nothing", ", ".join(seen) or "nothing")


def happy_day(run: Run) -> None:
    """A setpoint with an end, a mode change and a device command are executed, and telemetry comes."""
    run.client.watch_telemetry()
    commands = {
        "setpoint": run.send("command.site-setpoint", _setpoint()),
        "mode": run.send("command.mode", {"mode": "SELF_CONSUMPTION", "validFrom": _at()}),
        "device": run.send("command.device", {"deviceId": "inverter-1", "action": "RESTART", "params": {}}),
    }
    for step, message in commands.items():
        run.acknowledged(step, message, "ACCEPTED")
        run.ended(step, message, "EXECUTED")
    run.client.wait(lambda: bool(run.client.answers.get(TELEMETRY)))
    run.found("telemetry", "some", "some" if run.client.answers.get(TELEMETRY) else "none")


def overlapping_setpoints(run: Run) -> None:
    """Two setpoints that hold at the same time: both are taken, the later one counts."""
    first = run.send("command.site-setpoint", _setpoint())
    run.acknowledged("first", first, "ACCEPTED")
    run.ended("first", first, "EXECUTED")
    second = run.send("command.site-setpoint", _setpoint(direction="IMPORT", validFrom=_at(-60)))
    run.acknowledged("second", second, "ACCEPTED")
    run.ended("second", second, "EXECUTED")


def cancelled(run: Run) -> None:
    """A dispatch plan for tomorrow is created and cancelled."""
    slot = {"from": _at(86_400), "to": _at(90_000), "direction": "EXPORT", "targetValueKw": POWER_KW}
    create = run.client.message({"scheduleId": "certification", "priority": "NORMAL", "slots": [slot]})
    cancel = run.client.message({"scheduleId": "certification", "reason": "certification"})
    for step, message in (("create", create), ("cancel", cancel)):
        run.client.send(f"schedule.{step}", message)
        run.acknowledged(step, message, "ACCEPTED")
        run.ended(step, message, "EXECUTED")


def no_end_time(run: Run) -> None:
    """A setpoint that names no end is executed like any other."""
    payload = _setpoint()
    del payload["validUntil"]
    message = run.send("command.site-setpoint", payload)
    run.acknowledged("setpoint", message, "ACCEPTED")
    run.ended("setpoint", message, "EXECUTED")


def stale(run: Run) -> None:
    """Messages from too long ago are refused: after 5 minutes where a signature is required, else after 24 hours."""
    mode = run.send("command.mode", {"mode": "SELF_CONSUMPTION", "validFrom": _at()}, timestamp=_at(-600))
    setpoint = run.send("command.site-setpoint", _setpoint(), timestamp=_at(-25 * 3600))
    for step, message in (("mode", mode), ("setpoint", setpoint)):
        run.acknowledged(step, message, "REJECTED STALE_MESSAGE")
    for step, message in (("mode", mode), ("setpoint", setpoint)):
        run.quiet(step, message, ("execution",))


def duplicate(run: Run) -> None:
    """The same message twice is one command; another one under its message id is refused."""
    message = run.send("command.site-setpoint", _setpoint())
    run.acknowledged("first", message, "ACCEPTED")
    run.ended("first", message, "EXECUTED")
    run.client.send("command.site-setpoint", message)
    run.acknowledged("again", message, "ACCEPTED", "ACCEPTED")
    ids = {reply["messageId"] for reply in run.client.replies("status", message)}
    run.found("again: acknowledgements with the same id", "1", str(len(ids)))
    same = {name: message[name] for name in ("messageId", "correlationId")}
    run.send("command.site-setpoint", _setpoint(targetValueKw=2.0), **same)
    run.acknowledged("another body", message, "ACCEPTED", "ACCEPTED", "REJECTED DUPLICATE_MESSAGE_ID")
    run.ended("all of it", message, "EXECUTED")


def bad_signature(run: Run) -> None:
    """A wrong signature is refused; who signs nothing where it must learns nothing."""
    mode = {"mode": "SELF_CONSUMPTION", "validFrom": _at()}
    forged = run.client.message(mode) | {"signature": base64.urlsafe_b64encode(bytes(32)).decode()}
    run.acknowledged("forged", run.client.send("command.mode", forged), "REJECTED SIGNATURE_INVALID")
    setpoint = run.client.message(_setpoint()) | {"siteId": f"{run.client.site} "}
    run.acknowledged("changed", run.client.send("command.site-setpoint", setpoint), "REJECTED SIGNATURE_INVALID")
    unsigned = run.client.send("command.mode", run.client.message(mode, signed=False))
    run.quiet("unsigned", unsigned)
    run.quiet("forged", forged, ("execution",))


def emergency(run: Run) -> None:
    """STOP and RELEASE are executed, signed or not."""
    for step, signed in (("STOP", True), ("RELEASE", False)):
        message = run.send("command.emergency", {"action": step, "reason": "certification"}, signed=signed)
        run.acknowledged(step, message, "ACCEPTED")
        run.ended(step, message, "EXECUTED")


def broker_restart(run: Run) -> None:
    """Commands around an outage of the broker are executed once each."""
    before = [run.send("command.site-setpoint", _setpoint()) for _ in range(3)]
    run.disturb()
    after = [run.send("command.site-setpoint", _setpoint()) for _ in range(3)]
    run.client.wait(lambda: all(run.client.replies("execution", message) for message in (*before, *after)))
    for name, messages in (("before", before), ("after", after)):
        for number, message in enumerate(messages, 1):
            replies = {each["messageId"]: each for each in run.client.replies("status", message)}
            seen = ", ".join(_ack(each, message) for each in replies.values())
            run.found(f"{name} {number}: acknowledged", "ACCEPTED", seen or "nothing")
            run.ended(f"{name} {number}", message, "EXECUTED")
    run.found("the connection was lost", "yes", "yes" if run.client.reconnects else "no")


SCENARIOS: dict[str, Callable[[Run], None]] = {
    "happy-day": happy_day,
    "overlapping-setpoints": overlapping_setpoints,
    "cancelled": cancelled,
    "no-end-time": no_end_time,
    "stale": stale,
    "duplicate": duplicate,
    "bad-signature": bad_signature,
    "emergency": emergency,
    "broker-restart": broker_restart,
}


def certify(name: str, client: PartnerClient, disturb: Callable[[], None]) -> list[Check]:
    """Runs a scenario on a client that is open; `disturb` is what its broker suffers in between."""
    run = Run(client, disturb)
    SCENARIOS[name](run)
    return run.checks


def _setpoint(**changes: Any) -> dict[str, Any]:
    held = {"validFrom": _at(), "validUntil": _at(600)}
    return {"type": "POWER", "targetValueKw": POWER_KW, "direction": "EXPORT", "priority": "NORMAL", **held, **changes}


def _at(seconds: float = 0) -> str:
    return rfc3339(datetime.now(UTC) + timedelta(seconds=seconds))


def _ack(reply: dict[str, Any], message: dict[str, Any]) -> str:
    payload = reply["payload"]
    told = f"{payload['status']} {payload['reason']}" if "reason" in payload else str(payload["status"])
    return told + _stray(reply, message)


def _result(reply: dict[str, Any], message: dict[str, Any]) -> str:
    detail = reply["payload"].get("detail")
    return f"{reply['payload']['status']}{f' ({detail})' if detail else ''}{_stray(reply, message)}"


def _stray(reply: dict[str, Any], message: dict[str, Any]) -> str:
    return "" if reply.get("correlationId") == message.get("correlationId") else " in another correlation"
