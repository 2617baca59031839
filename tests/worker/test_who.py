"""Every event says who caused it, through which door, for which request, and what it followed from."""

from datetime import UTC, datetime, timedelta
from typing import Any

from application.context import Metadata, acting
from application.plant_configs import PlantConfigChange
from domain import vcp
from infra.sandbox.esm_plants import SandboxPlant
from tests.examples import USER, block
from tests.worker.site import Site, setpoint
from tests.worker.test_alarms import Intake, configure, moment, sample

ASKED = Metadata(f"user:{USER}", "http", "request-1")


def told(site: Site, *topics: str) -> list[tuple[int, dict[str, Any]]]:
    """Positions and metadata, in the order of the log."""
    return site.rows("SELECT position, metadata FROM events WHERE topic = ANY(%s) ORDER BY position", list(topics))


def who(metadata: dict[str, Any]) -> tuple[str, str]:
    return metadata["actor"], metadata["source"]


def test_a_command_from_the_partner_to_the_plant_and_back(local: Site) -> None:
    local.worker()
    gateway = local.gateway()
    for correlation in ({"correlationId": "c-1"}, {}):
        message_id = local.partner.send("command.site-setpoint", "esm-001", setpoint(), **correlation)
        story = correlation.get("correlationId", str(message_id))
        delivered = gateway.wait_for(1 if correlation else 2)[-1]
        local.reaches(message_id, "RELAYED")
        local.answer(delivered, "EXECUTED")
        local.reaches(message_id, "EXECUTED")
        rows = local.rows(
            "SELECT position, metadata FROM events JOIN command_log ON id = stream_id WHERE message_id = %s"
            " ORDER BY position",
            message_id,
        )
        (_, created), (accepted_at, accepted), (_, relayed), (_, executed) = rows
        assert created == accepted
        assert (who(created), created["causation_id"]) == (("partner:acme", "amqp"), str(message_id))
        assert (who(relayed), relayed["causation_id"]) == (("publisher", "follower"), str(accepted_at))
        assert who(executed) == (f"plant:{local.plant_id}", "amqp")
        assert {each["correlation_id"] for _, each in rows} == {story}
        assert len({each["request_id"] for _, each in rows}) == 3


def test_what_the_scheduler_does_follows_from_what_was_there(local: Site) -> None:
    soon = vcp.rfc3339(datetime.now(UTC) + timedelta(seconds=1))
    local.worker()
    message_id = local.partner.send("command.site-setpoint", "esm-002", setpoint(validUntil=soon), correlationId="c-2")
    local.reaches(message_id, "EXPIRED")
    [(stream,)] = local.rows("SELECT id FROM command_log WHERE message_id = %s", message_id)
    [(accepted_at, _), (_, expired)] = local.rows(
        "SELECT position, metadata FROM events WHERE stream_id = %s AND version > 1 ORDER BY position", stream
    )
    assert (who(expired), expired["correlation_id"]) == (("scheduler", "scheduler"), "c-2")
    assert expired["causation_id"] == str(accepted_at)


def test_a_later_answer_follows_from_the_change_that_was_sent(local: Site) -> None:
    local.esm.__init__([SandboxPlant("esm-001", "Brno", late_polls=1)])  # type: ignore[misc]
    change = PlantConfigChange(time_configs=[block()])
    with acting(ASKED):
        local.plant_configs.change(local.organization_id, local.plant_id, change, USER)
    with acting(Metadata("scheduler", "scheduler")):
        while len(told(local, "plant-config:change-answered")) < 2:
            local.plant_configs.finish(local.plant_id)
    [(_, sent)] = told(local, "plant-config:change-sent")
    [(later_at, later), (_, last)] = told(local, "plant-config:change-answered")
    assert who(sent) == who(later) == (f"user:{USER}", "http")
    assert sent["correlation_id"] == "request-1"
    assert (who(last), last["correlation_id"]) == (("scheduler", "scheduler"), "request-1")
    assert last["causation_id"] == str(later_at)


def test_an_alarm_is_its_plants(local: Site) -> None:
    local.worker()
    configure(local, block(pBatMin=-5, pBatMax=5))
    intake = Intake(local)
    intake.take(sample(moment(), 9))
    intake.measurements.close()
    [(_, raised)] = told(local, "plant-alarm:raised")
    assert who(raised) == (f"plant:{local.plant_id}", "amqp")


def test_every_event_says_it(local: Site) -> None:
    local.worker()
    message_id = local.partner.send("command.site-setpoint", "esm-001", setpoint())
    local.reaches(message_id, "ACCEPTED")
    for (metadata,) in local.rows("SELECT metadata FROM events"):
        assert {"actor", "source", "request_id", "correlation_id"} <= set(metadata)
