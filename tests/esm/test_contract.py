"""What every EsmClient does: the adapter against the sandbox over HTTP, and the fake that use cases are tested with."""

from dataclasses import replace
from uuid import uuid4

import pytest

from application.ports import EsmAnswer, EsmClient, Partner
from domain.day_plan import TimeBlock
from domain.errors import EsmUnreachable, EsmUrlNotAllowed
from infra.esm import Esm
from infra.sandbox.esm import SandboxEsm
from infra.sandbox.esm_plants import SandboxPlants
from tests.esm.conftest import SECRET
from tests.fakes import FakeEsm

PLANT = "esm-001"


@pytest.fixture(params=["adapter", "fake"])
def pair(request: pytest.FixtureRequest, esm: Esm, sandbox: SandboxEsm) -> tuple[EsmClient, SandboxPlants]:
    """A client, and the plants that it reaches."""
    if request.param == "adapter":
        return esm, sandbox.plants
    fake = FakeEsm()
    fake.client_secret = SECRET
    return fake, fake.state


def block(power: float, start: str = "00:00", end: str = "24:00") -> TimeBlock:
    bounds = {"p_bat_min": -power, "p_bat_max": power, "soc_min": 10.0, "soc_max": 90.0}
    return TimeBlock.model_validate({"from": start, "to": end, **bounds})


def test_the_list_has_every_plant_with_all_its_fields(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, plants = pair
    listed = client.plants(partner)
    assert listed.plants == tuple(plant.listed() for plant in plants.all())
    assert len(listed.plants) == 3
    assert listed.errors == ()


def test_the_list_follows_what_is_added_renamed_and_removed(
    pair: tuple[EsmClient, SandboxPlants], partner: Partner
) -> None:
    client, plants = pair
    plants.change(PLANT, name="Renamed")
    plants.remove("esm-002")
    assert [(plant.plant_id, plant.name) for plant in client.plants(partner).plants] == [
        (PLANT, "Renamed"),
        ("esm-003", "Ostrava storage"),
    ]


def test_a_config_is_read_as_the_esm_has_it(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, plants = pair
    config = client.plant_config(partner, PLANT)
    assert config == plants.get(PLANT).config()
    assert config.version == 1
    assert len(config.time_configs) == 4


def test_an_update_is_applied_and_moves_the_version(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, _ = pair
    answer = client.update_config(partner, PLANT, 1, [block(50)], validate_only=False)
    assert (answer.result_code, answer.is_error, answer.is_terminal) == ("OK", False, True)
    config = client.plant_config(partner, PLANT)
    assert (config.version, config.time_configs) == (2, (block(50),))


def test_validating_applies_nothing(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, _ = pair
    before = client.plant_config(partner, PLANT)
    answer = client.update_config(partner, PLANT, 1, [block(50)], validate_only=True)
    assert (answer.result_code, answer.is_error, answer.is_terminal) == ("VALID", False, True)
    assert client.plant_config(partner, PLANT) == before


@pytest.mark.parametrize(
    ("version", "blocks", "code"),
    [
        (7, [block(50)], "VERSION_CONFLICT"),
        (1, [block(100.5)], "SETPOINT_OUT_OF_RANGE"),
        (1, [block(5, "00:00", "10:00"), block(5, "09:00", "24:00")], "INVALID_PLAN"),
    ],
)
def test_what_the_esm_refuses_is_an_answer(
    pair: tuple[EsmClient, SandboxPlants], partner: Partner, version: int, blocks: list[TimeBlock], code: str
) -> None:
    client, _ = pair
    before = client.plant_config(partner, PLANT)
    answer = client.update_config(partner, PLANT, version, blocks, validate_only=False)
    assert (answer.result_code, answer.is_error, answer.is_terminal) == (code, True, True)
    assert client.plant_config(partner, PLANT) == before


def test_an_answer_may_come_later(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, plants = pair
    plants.change(PLANT, late_polls=2)
    taken = client.update_config(partner, PLANT, 1, [block(50)], validate_only=False)
    assert taken == EsmAnswer(taken.request_code, "ACCEPTED", "The plan is being processed", False, False)
    assert taken.request_code is not None
    second = client.update_config(partner, PLANT, 1, [block(40)], validate_only=False)
    assert (second.result_code, second.is_error) == ("CHANGE_IN_FLIGHT", True)

    assert client.request_status(partner, taken.request_code) == taken
    assert client.plant_config(partner, PLANT).version == 1
    done = client.request_status(partner, taken.request_code)
    assert (done.request_code, done.result_code, done.is_terminal) == (taken.request_code, "OK", True)
    assert client.plant_config(partner, PLANT).version == 2


@pytest.mark.parametrize("method", ["plant_config", "request_status"])
def test_what_the_esm_does_not_know_is_unreachable(
    pair: tuple[EsmClient, SandboxPlants], partner: Partner, method: str
) -> None:
    client, _ = pair
    with pytest.raises(EsmUnreachable, match=r"^ESM answered 404 to the "):
        getattr(client, method)(partner, "unknown")


def test_wrong_credentials_are_told(pair: tuple[EsmClient, SandboxPlants], partner: Partner) -> None:
    client, _ = pair
    with pytest.raises(EsmUnreachable, match=r"^ESM refused the client id and secret$"):
        client.plants(replace(partner, organization_id=uuid4(), client_secret="wrong"))


def test_a_url_that_is_none_is_refused(pair: tuple[EsmClient, SandboxPlants]) -> None:
    with pytest.raises(EsmUrlNotAllowed, match=r"^The ESM API URL is not allowed"):
        pair[0].check_url("ftp://partner.example")


def test_the_fake_fails_on_demand(partner: Partner) -> None:
    fake = FakeEsm()
    fake.fail("plants")
    with pytest.raises(EsmUnreachable):
        fake.plants(partner)
    assert len(fake.plants(partner).plants) == 3
    fake.down = True
    with pytest.raises(EsmUnreachable):
        fake.plant_config(partner, PLANT)
