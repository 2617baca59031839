"""Many organisations that sync at once each get their turn."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest

from application.context import Metadata, acting
from application.plants import SyncResult
from application.ports import EsmPlantList, Partner
from application.trading import TradingConfigChange
from infra.bootstrap import SYNCS, Parts
from infra.operator_keys import OperatorKey
from infra.sandbox.esm import CLIENT_ID, CLIENT_SECRET
from tests.worker.mortal_caller import caller


@pytest.fixture
def parts(database_url: str) -> Iterator[Parts]:
    with caller(database_url, [OperatorKey.random()]) as parts, acting(Metadata(actor="test", source="cli")):
        yield parts


def test_as_many_as_there_are_turns(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    change = {"esmApiUrl": "http://127.0.0.1:8700", "esmClientId": CLIENT_ID, "esmClientSecret": CLIENT_SECRET}
    ids = [parts.organisations.create(f"org-{number}").id for number in range(SYNCS)]
    for each in ids:
        parts.trading.change_config(each, TradingConfigChange.model_validate(change))
    together = Barrier(SYNCS)

    def plants(_: Partner) -> EsmPlantList:
        together.wait(10)
        return EsmPlantList(())

    monkeypatch.setattr(parts.plants.esm, "plants", plants)

    def sync(organization_id: UUID) -> SyncResult:
        with acting(Metadata(actor="test", source="cli")):
            return parts.plants.sync(organization_id)

    with ThreadPoolExecutor(SYNCS) as threads:
        assert list(threads.map(sync, ids)) == [SyncResult(0, 0)] * SYNCS
