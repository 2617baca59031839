"""`wattledger dead-letters` on a real broker: looking changes nothing, sending again loses nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from application.ports import DeadLetter, Delivery
from domain import topology
from domain.errors import BrokerUnreachable, NotFound
from domain.partner_rights import UNPROVEN
from domain.topology import DEAD_QUEUE
from infra.dead_letter_queue import DeadLetterQueue
from infra.dead_letters import message_of
from infra.rabbitmq import RabbitBroker
from tests.amqp_client import AmqpClient
from tests.broker.inbox import Inbox
from tests.cli.conftest import Run
from tests.worker.site import until

COMMANDS, KEY = "vcp.acme.command", "acme.command.mode"


@pytest.fixture
def rabbit(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitBroker]:
    monkeypatch.setenv("WATTLEDGER_AMQP_URL", amqp_url)
    broker = RabbitBroker(amqp_url)
    broker.declare(topology.needed_by("acme"))
    yield broker
    broker.close()


def bury(broker: RabbitBroker, count: int, reason: str = "no JSON", key: str = KEY, exchange: str = "vcp") -> None:
    letters = [
        DeadLetter(Delivery(COMMANDS, exchange, key, b"{%d" % number, f"m-{number}"), reason, f"r-{number}")
        for number in range(1, count + 1)
    ]
    assert all(broker.publish([message_of(letter) for letter in letters]))


def requeued(url: str, count: int) -> list[tuple[str, bytes, str | None]]:
    with AmqpClient(url) as client:
        return [(each.routing_key, each.body, each.message_id) for each in client.get_until(COMMANDS, count)]


def numbers(url: str) -> list[str]:
    """The request ids in the order of the queue."""
    return [letter.request_id for letter in DeadLetterQueue(url).peek(1000)]


def test_they_are_listed_in_order_and_stay_where_they_are(run: Run, rabbit: RabbitBroker) -> None:
    assert run("dead-letters", "list") == "None.\n"
    bury(rabbit, 5)
    first = json.loads(run("dead-letters", "list", "--json"))
    assert [letter["requestId"] for letter in first] == ["r-1", "r-2", "r-3", "r-4", "r-5"]
    assert first[0].pop("ageSeconds") < 60
    assert first[0] == {
        "number": 1, "reason": "no JSON", "queue": COMMANDS, "routingKey": KEY, "size": 2, "requestId": "r-1",
    }  # fmt: skip
    for _ in range(3):
        assert [each["requestId"] for each in json.loads(run("dead-letters", "list", "--json"))] == [
            f"r-{number}" for number in range(1, 6)
        ]
    table = run("dead-letters", "list", "--limit", "2")
    assert "r-2" in table
    assert "r-3" not in table


def test_one_is_shown_by_its_number_or_its_request_id(run: Run, rabbit: RabbitBroker) -> None:
    bury(rabbit, 3)
    shown = json.loads(run("dead-letters", "show", "2", "--json"))
    assert (shown["body"], shown["messageId"], shown["headers"]["original-queue"]) == ("{2", "m-2", COMMANDS)
    assert json.loads(run("dead-letters", "show", "r-2", "--json"))["number"] == 2
    assert run("dead-letters", "show", "3").endswith("\n{3\n")
    for missing in ("4", "0", "r-9"):
        assert f"No dead letter {missing}" in run("dead-letters", "show", missing, status=2)


def test_one_is_sent_again_and_the_others_stay(run: Run, rabbit: RabbitBroker, amqp_url: str) -> None:
    bury(rabbit, 3)
    assert json.loads(run("dead-letters", "requeue", "2", "--json"))[0]["requeued"] is True
    assert requeued(amqp_url, 1) == [(KEY, b"{2", "m-2")]
    until(lambda: numbers(amqp_url) == ["r-1", "r-3"], "the others in their order")


def test_all_are_sent_again(run: Run, rabbit: RabbitBroker, amqp_url: str) -> None:
    bury(rabbit, 30)
    bury(rabbit, 1, key=COMMANDS, exchange="")
    until(lambda: DeadLetterQueue(amqp_url).count() == 31, "the letters")
    assert run("dead-letters", "requeue", "--all") == "Sent again: 31.\n"
    assert [body for _, body, _ in requeued(amqp_url, 31)] == [*(b"{%d" % n for n in range(1, 31)), b"{1"]
    assert numbers(amqp_url) == []


@pytest.mark.parametrize(("reason", "key"), [("no JSON", "nobody.command.mode"), (UNPROVEN, KEY)])
def test_what_can_t_be_sent_stays(run: Run, rabbit: RabbitBroker, amqp_url: str, reason: str, key: str) -> None:
    bury(rabbit, 1, reason, key)
    bury(rabbit, 1)
    until(lambda: DeadLetterQueue(amqp_url).count() == 2, "the letters")
    assert "Stays: 1 " in run("dead-letters", "requeue", "--all", status=1)
    assert len(requeued(amqp_url, 1)) == 1
    until(lambda: len(numbers(amqp_url)) == 1, "the one that stays")
    assert DeadLetterQueue(amqp_url).peek(9)[0].original_routing_key == key


def test_an_interruption_loses_none(rabbit: RabbitBroker, amqp_url: str) -> None:
    """Killed in the middle: each is in one of the two queues, or in both."""
    bury(rabbit, 300)
    until(lambda: DeadLetterQueue(amqp_url).count() == 300, "the letters")
    program = (
        "import sys; from infra.dead_letter_queue import DeadLetterQueue\n"
        "for each in DeadLetterQueue(sys.argv[1]).requeue_all(): print(each.letter.number, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, amqp_url], stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 20:
                process.send_signal(signal.SIGKILL)
                break
    inbox = Inbox()
    rabbit.consumer({COMMANDS, DEAD_QUEUE}, inbox)
    inbox.wait_until(lambda received: len({each.message_id for each in received}) == 300)
    assert {each.queue for each in inbox.received} == {COMMANDS, DEAD_QUEUE}


def test_what_is_asked_wrongly(run: Run, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "WATTLEDGER_AMQP_URL" in run("dead-letters", "list", status=2)
    monkeypatch.setenv("WATTLEDGER_AMQP_URL", amqp_url)
    assert "no queue vcp.dead" in run("dead-letters", "list", status=2)
    assert "--all" in run("dead-letters", "requeue", status=2)
    assert "--all" in run("dead-letters", "requeue", "1", "--all", status=2)


def test_a_broker_that_is_away() -> None:
    with pytest.raises(BrokerUnreachable):
        DeadLetterQueue("amqp://127.0.0.1:1/").peek(1)
    assert issubclass(NotFound, Exception)
