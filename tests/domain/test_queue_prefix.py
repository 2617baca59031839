"""Who holds a queue prefix."""

from domain.errors import QueuePrefixTaken
from domain.queue_prefix import QueuePrefix
from tests.examples import ACME, RIVAL, prefix_claimed, prefix_created, prefix_released
from tests.given import facts_of, given


def test_the_first_claim_creates_it() -> None:
    assert facts_of(QueuePrefix("acme-north", ACME, False)) == [prefix_created()]


def test_a_prefix_is_one_stream() -> None:
    assert QueuePrefix("acme", ACME, False).id == QueuePrefix("acme", RIVAL, True).id


def test_a_released_prefix_can_be_claimed_by_anyone() -> None:
    free = given(prefix_created(), prefix_released())
    free.when(QueuePrefix.claim, RIVAL).then(prefix_claimed(RIVAL))
    free.when(QueuePrefix.claim, ACME).then(prefix_claimed(ACME))


def test_a_held_prefix_is_refused_to_others() -> None:
    given(prefix_created()).when(QueuePrefix.claim, RIVAL).refuses(QueuePrefixTaken)
    given(prefix_created(), prefix_released(), prefix_claimed(RIVAL)).when(QueuePrefix.claim, ACME).refuses(
        QueuePrefixTaken
    )


def test_claiming_twice_records_nothing() -> None:
    given(prefix_created()).when(QueuePrefix.claim, ACME).then()
    given(prefix_created(), prefix_released(), prefix_claimed(RIVAL)).when(QueuePrefix.claim, RIVAL).then()


def test_a_prefix_is_released() -> None:
    given(prefix_created()).when(QueuePrefix.release).then(prefix_released())


def test_releasing_twice_records_nothing() -> None:
    given(prefix_created(), prefix_released()).when(QueuePrefix.release).then()


def test_a_slug_is_never_released() -> None:
    slug = given(prefix_created(is_slug=True))
    slug.when(QueuePrefix.release).then()
    slug.when(QueuePrefix.claim, RIVAL).refuses(QueuePrefixTaken)
