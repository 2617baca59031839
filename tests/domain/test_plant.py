"""A plant, as its ESM lists it."""

from domain.plant import Plant, PlantDescription
from tests.examples import ACME, RIVAL, described, description, linked, missed, registered, seen_again, unlinked
from tests.given import START, facts_of, given

LINKED = (registered(), linked(), described())


def test_a_plant_is_registered_unlinked() -> None:
    assert facts_of(Plant(ACME, "esm-001", "Brno depot")) == [registered()]
    assert not given(registered()).state().linked


def test_its_id_follows_from_organisation_and_external_id() -> None:
    assert Plant(ACME, "esm-001", "Brno").id == Plant.create_id(ACME, "esm-001")
    assert len({Plant.create_id(ACME, "esm-001"), Plant.create_id(RIVAL, "esm-001"), Plant.create_id(ACME, "2")}) == 3


def test_a_listed_plant_is_linked_and_described() -> None:
    given(registered()).when(Plant.link, description()).then(linked(), described())


def test_a_plant_of_which_only_the_name_is_known_needs_no_description() -> None:
    given(registered()).when(Plant.link, PlantDescription("Brno depot")).then(linked())


def test_listing_it_again_records_nothing() -> None:
    given(*LINKED).when(Plant.link, description()).then()


def test_a_change_of_its_description_is_recorded() -> None:
    renamed = description("Brno depot 2", config_enabled=False)
    given(*LINKED).when(Plant.link, renamed).then(described(renamed))


def test_a_list_without_it_is_a_miss() -> None:
    given(*LINKED).when(Plant.miss, START).then(missed(START))
    given(*LINKED, missed(START)).when(Plant.miss, START).then(missed(START))


def test_the_third_miss_in_a_row_unlinks_it() -> None:
    given(*LINKED, missed(), missed()).when(Plant.miss, None).then(missed(), unlinked())


def test_missing_what_is_not_linked_records_nothing() -> None:
    given(registered()).when(Plant.miss, START).then()
    given(*LINKED, missed(), missed(), missed(), unlinked()).when(Plant.miss, START).then()


def test_seen_again_the_count_starts_anew() -> None:
    given(*LINKED, missed(), missed()).when(Plant.link, description()).then(seen_again())
    given(*LINKED, missed(), missed(), seen_again(), missed()).when(Plant.miss, None).then(missed())


def test_seen_again_under_another_name() -> None:
    renamed = description("Other")
    given(*LINKED, missed()).when(Plant.link, renamed).then(seen_again(), described(renamed))


def test_an_unlinked_plant_is_linked_again_and_may_be_missed_thrice_again() -> None:
    gone = (*LINKED, missed(), missed(), missed(), unlinked())
    given(*gone).when(Plant.link, description()).then(linked())
    given(*gone, linked()).when(Plant.miss, None).then(missed())
