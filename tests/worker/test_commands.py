"""A partner's commands from its queue to the plant and back, over both brokers."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.worker.site import Site, json, setpoint, until


def test_a_signed_setpoint_lives_its_whole_life(site: Site) -> None:
    site.worker()
    gateway, status = site.gateway(), site.inbox("vcp.acme.event.status")
    execution = site.inbox("vcp.acme.event.execution")
    message_id = site.partner.send("command.site-setpoint", "esm-001", setpoint(), correlationId="c-1")
    [ack] = status.wait_for(1)
    assert json(ack)["payload"] == {"messageId": str(message_id), "status": "ACCEPTED"}
    assert json(ack)["correlationId"] == "c-1"
    [told] = gateway.wait_for(1)
    assert json(told)["payload"]["targetValueKw"] == 40
    site.reaches(message_id, "RELAYED")
    site.answer(told, "RECEIVED")
    site.answer(told, "EXECUTED", detail="done")
    [result] = execution.wait_for(1)
    payload = json(result)["payload"]
    assert (payload["messageId"], payload["status"], payload["detail"]) == (str(message_id), "EXECUTED", "done")
    site.reaches(message_id, "EXECUTED")
    row = site.rows(
        "SELECT plant_id, command_type, ack_status, site_id, number, executed_at IS NOT NULL FROM command_log"
    )
    assert row == [(site.plant_id, "SITE_SETPOINT", "ACK", "esm-001", 1, True)]
    actors = site.rows("SELECT DISTINCT metadata->>'actor' FROM events WHERE topic LIKE 'relayed-command:%%'")
    assert {actor for (actor,) in actors} == {"partner:acme", "publisher", f"plant:{site.plant_id}"}


def test_emergency_refusal_and_failure(site: Site) -> None:
    site.worker()
    gateway, status = site.gateway(), site.inbox("vcp.acme.event.status")
    execution = site.inbox("vcp.acme.event.execution")
    site.partner.send("command.emergency", "esm-001", {"action": "STOP"})
    [told] = gateway.wait_for(1)
    assert (json(told)["type"], json(told)["payload"]["action"]) == ("command.emergency", "STOP")
    site.answer(told, "FAILED", detail="no power")
    [result] = execution.wait_for(1)
    assert json(result)["payload"]["status"] == "FAILED"
    refused = site.partner.send("command.site-setpoint", "esm-404", setpoint())
    _, nack = status.wait_for(2)
    assert json(nack)["payload"] == {"messageId": str(refused), "status": "REJECTED", "reason": "UNKNOWN_SITE"}
    site.reaches(refused, "REJECTED")


def test_what_cannot_be_read_goes_to_the_dead_letters_with_its_reason(site: Site) -> None:
    site.worker()
    site.gateway()
    site.send_raw("acme.command.mode", b"no json")
    site.send_raw("acme.command.dance", site.partner.body("esm-001", {}))
    fine = site.partner.send("config.limits", "esm-001", {"a": 1})
    dead = site.dead(2)
    assert sorted(dead.values()) == ["no JSON", "no such command"]
    site.reaches(fine, "RELAYED")


def test_the_same_message_again_has_one_effect_and_the_same_answer(site: Site) -> None:
    site.worker()
    gateway, status = site.gateway(), site.inbox("vcp.acme.event.status")
    body = site.partner.body("esm-001", setpoint(), messageId=str(uuid4()))
    site.send_raw("acme.command.site-setpoint", body)
    status.wait_for(1)
    site.send_raw("acme.command.site-setpoint", body)
    first, again = status.wait_for(2)
    assert first.message_id == again.message_id
    assert len(gateway.wait_for(1)) == 1
    # The projector has its own pace.
    until(lambda: site.rows("SELECT 1 FROM command_log") != [], "the command's row")
    assert site.rows("SELECT count(*) FROM command_log") == [(1,)]


def test_enabling_and_disabling_changes_what_is_consumed(site: Site) -> None:
    worker = site.worker()
    until(lambda: worker.status().queues == 3, "acme's queues")
    site.join("rival")
    until(lambda: worker.status().queues == 6, "rival's queues")
    status = site.inbox("vcp.rival.event.status")
    site.partner.send("command.site-setpoint", "esm-001", setpoint())
    status.wait_for(1)
    with site.acting():
        site.trading.disable(site.organization_id)
    until(lambda: worker.status().queues == 3, "acme's end")
    assert not site.broker.queue_exists("vcp.acme.command")
    with site.acting():
        site.trading.enable(site.organization_id)
    until(lambda: worker.status().queues == 6, "acme's return")
    status = site.inbox("vcp.acme.event.status")
    site.send_raw("acme.command.emergency", site.partner.body("esm-404", {"action": "STOP"}))
    status.wait_for(1)


def test_two_workers_side_by_side_double_nothing(site: Site) -> None:
    first, second = site.worker(), site.worker()
    gateway, status = site.gateway(), site.inbox("vcp.acme.event.status")
    execution = site.inbox("vcp.acme.event.execution")
    sent = {str(site.partner.send("command.site-setpoint", "esm-001", setpoint())) for _ in range(60)}
    for told in gateway.wait_for(60):
        site.answer(told, "EXECUTED")
    execution.wait_for(60)
    until(lambda: site.rows("SELECT count(*) FROM command_log WHERE status = 'EXECUTED'") == [(60,)], "all executed")
    for inbox in (status, execution):
        assert sorted(json(each)["payload"]["messageId"] for each in inbox.received) == sorted(sent)
    assert len(gateway.received) == 60
    topics = site.rows(
        "SELECT topic, count(*) FROM events WHERE topic LIKE 'relayed-command:%%' AND topic NOT LIKE '%%relayed'"
        " GROUP BY topic"
    )
    assert set(topics) == {(f"relayed-command:{topic}", 60) for topic in ("created", "accepted", "executed")}
    for name in ("projector", "publisher"):
        assert [worker.status().followers[name] for worker in (first, second)].count(True) == 1
    assert first.status().leads != second.status().leads


def test_a_plant_that_is_offline_gets_its_command_once_it_listens(site: Site) -> None:
    site.worker()
    message_id = site.partner.send("command.site-setpoint", "esm-001", setpoint())
    site.reaches(message_id, "ACCEPTED")
    gateway = site.gateway()
    # Tried again only after some seconds, which the test does not wait for.
    site.rows("UPDATE command_log SET created_at = created_at - interval '1 minute' RETURNING id")
    [told] = gateway.wait_for(1)
    site.reaches(message_id, "RELAYED")
    site.answer(told, "EXECUTED")
    site.reaches(message_id, "EXECUTED")


def test_a_plant_that_says_nothing_in_time_lets_its_command_expire(site: Site) -> None:
    site.worker()
    execution = site.inbox("vcp.acme.event.execution")
    message_id = site.partner.send("command.site-setpoint", "esm-001", setpoint())
    site.reaches(message_id, "ACCEPTED")
    assert site.rows("SELECT extract(epoch FROM expires_at - created_at) BETWEEN 899 AND 901 FROM command_log") == [
        (True,)
    ]
    soon = site.partner.send("command.site-setpoint", "esm-001", setpoint(validUntil=_in(1.0)))
    site.reaches(soon, "EXPIRED")
    [result] = execution.wait_for(1)
    assert json(result)["payload"] == {"messageId": str(soon), "status": "EXPIRED"}
    assert site.status(message_id) == "ACCEPTED"


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
