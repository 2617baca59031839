"""The changes of a plant's configuration."""

from typing import Any

from domain.errors import ChangeInFlight
from domain.plant_config import Change, PlantConfig
from tests.examples import ACME, CHANGE, PLANT, RIVAL, change_answered, change_sent, later, plant_config_created
from tests.given import START, facts_of, given

SEND: dict[str, Any] = {name: value for name, value in change_sent().says.items() if name != "plant_id"}
ANSWER: dict[str, Any] = change_answered().says
LATER: dict[str, Any] = later().says
SENT = (plant_config_created(), change_sent())


def test_a_plant_has_one_config() -> None:
    assert facts_of(PlantConfig(ACME, PLANT)) == [plant_config_created()]
    assert PlantConfig(ACME, PLANT).id == PlantConfig.create_id(PLANT)


def test_a_change_is_sent_and_in_flight_since_then() -> None:
    given(plant_config_created()).when(PlantConfig.send_change, **SEND).then(change_sent())
    sent_at = START.replace(second=1)
    expected = Change(CHANGE, sent_at, 1, False, SEND["time_configs"])
    assert given(*SENT).state().in_flight == expected


def test_one_change_is_in_flight_at_a_time() -> None:
    given(*SENT).when(PlantConfig.send_change, **SEND | {"change_id": RIVAL}).refuses(ChangeInFlight)
    given(*SENT, later()).when(PlantConfig.send_change, **SEND | {"change_id": RIVAL}).refuses(ChangeInFlight)


def test_the_next_change_may_follow_a_final_answer() -> None:
    given(*SENT, change_answered()).when(PlantConfig.send_change, **SEND | {"change_id": RIVAL}).then(
        change_sent(RIVAL)
    )


def test_a_final_answer_ends_a_change() -> None:
    given(*SENT).when(PlantConfig.answer_change, **ANSWER).then(change_answered())
    assert given(*SENT, change_answered()).state().in_flight is None


def test_a_refusal_ends_a_change() -> None:
    refused = change_answered(result_code="VERSION_CONFLICT", is_error=True)
    given(*SENT).when(PlantConfig.answer_change, **refused.says).then(refused)


def test_a_later_keeps_it_in_flight_under_its_request_code() -> None:
    given(*SENT).when(PlantConfig.answer_change, **LATER).then(later())
    change = given(*SENT, later()).state().in_flight
    assert (change.request_code, change.answered) == ("REQ-1", True)


def test_the_final_answer_after_a_later() -> None:
    given(*SENT, later()).when(PlantConfig.answer_change, **ANSWER).then(change_answered())
    assert given(*SENT, later(), change_answered()).state().in_flight is None


def test_a_final_answer_without_a_request_code_keeps_the_one_known() -> None:
    given(*SENT, later()).when(PlantConfig.answer_change, **ANSWER | {"request_code": None}).then(change_answered())


def test_a_repeated_later_records_nothing() -> None:
    given(*SENT, later()).when(PlantConfig.answer_change, **LATER).then()


def test_a_repeated_final_answer_records_nothing() -> None:
    given(*SENT, change_answered()).when(PlantConfig.answer_change, **ANSWER).then()
    given(plant_config_created()).when(PlantConfig.answer_change, **ANSWER).then()


def test_an_answer_to_another_change_records_nothing() -> None:
    given(*SENT).when(PlantConfig.answer_change, **ANSWER | {"change_id": RIVAL}).then()
