"""Fakes of the ports, in memory; each passes the same contract test as its adapter."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from application.ports import EsmAnswer, EsmPlantConfig, EsmPlantList, Partner
from domain.day_plan import TimeBlock
from domain.errors import EsmUnreachable, EsmUrlNotAllowed
from infra.sandbox.esm_plants import SandboxPlant, SandboxPlants

T = TypeVar("T")

ASKED_FOR = {
    "plants": "plant list",
    "plant_config": "plant config",
    "update_config": "config update",
    "request_status": "request status",
}


class FakeEsm:
    """An EsmClient over the sandbox's plants, without HTTP: one ESM for every partner.

    `state` is its state; `errors` and `unread` go with the next lists; `fail` makes calls raise, `down` all of them;
    `refused_urls` don't pass `check_url`; `calls` counts by method, `updates` keeps what `update_config` was given.
    """

    def __init__(self, plants: int | Sequence[SandboxPlant] = 3):
        self.state = SandboxPlants(plants)
        self.errors: tuple[str, ...] = ()
        self.unread: frozenset[str] = frozenset()
        self.down = False
        self.client_secret: str | None = None
        self.refused_urls: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.updates: list[tuple[str, int, tuple[TimeBlock, ...], bool]] = []
        self._failures: dict[str, list[Exception]] = {}

    def fail(self, method: str, error: Exception | None = None, times: int = 1) -> None:
        """The next `times` calls of a method raise; by default EsmUnreachable."""
        failure = error or EsmUnreachable(f"ESM answered 500 to {method}")
        self._failures.setdefault(method, []).extend([failure] * times)

    def check_url(self, url: str) -> None:
        if url in self.refused_urls or not url.startswith(("http://", "https://")):
            raise EsmUrlNotAllowed

    def plants(self, partner: Partner) -> EsmPlantList:
        self._enter("plants", partner)
        return EsmPlantList(tuple(plant.listed() for plant in self.state.all()), self.errors, self.unread)

    def plant_config(self, partner: Partner, plant_id: str) -> EsmPlantConfig:
        self._enter("plant_config", partner)
        return _known("plant config", lambda: self.state.get(plant_id).config())

    def update_config(
        self, partner: Partner, plant_id: str, version: int, blocks: Sequence[TimeBlock], *, validate_only: bool
    ) -> EsmAnswer:
        self._enter("update_config", partner)
        self.updates.append((plant_id, version, tuple(blocks), validate_only))
        return _known(
            "config update", lambda: self.state.update(plant_id, version, blocks, validate_only=validate_only)
        )

    def request_status(self, partner: Partner, request_code: str) -> EsmAnswer:
        self._enter("request_status", partner)
        return _known("request status", lambda: self.state.status(request_code))

    def _enter(self, method: str, partner: Partner) -> None:
        self.calls[method] += 1
        if self.down:
            raise EsmUnreachable(f"ESM can't be reached for the {ASKED_FOR[method]}")
        if waiting := self._failures.get(method):
            raise waiting.pop(0)
        if self.client_secret not in (None, partner.client_secret):
            raise EsmUnreachable("ESM refused the client id and secret")


def _known(what: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except KeyError:
        raise EsmUnreachable(f"ESM answered 404 to the {what}") from None
