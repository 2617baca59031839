"""The check of all seals beside a bare read of the log; appends with the sealer at work and without."""

from functools import partial
from typing import Any

from psycopg import Connection

from infra.audit.sealer import Sealer
from infra.audit.sealing_keys import SealingKeys
from infra.audit.verification import Trusted, verify
from infra.data_keys import DataKeys
from infra.operator_keys import OperatorKey
from infra.postgres import connect
from projections.slots import Connect
from tests.benchmarks.appending import _append, _log, _writing, following
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, rate
from tests.benchmarks.rebuilding import EVENTS, _read, history

TRUSTED = Trusted(pinned=None, opens=True, anchors={})
KEY = OperatorKey("bench", bytes(range(32)))


@benchmark("verify_chain", Goal(0.7, 1.0), "events/s")
def verify_chain(bench: Bench) -> Result:
    """Every event, seal and signature."""
    url = history(bench)
    sealer(partial(connect, url, "sealer")).catch_up()

    def ours() -> None:
        with connect(url, "verify") as connection:
            found = verify(connection, TRUSTED)
        if not found.intact or found.events != EVENTS:
            raise AssertionError(found)

    return compare(lambda: rate(ours, EVENTS), lambda: rate(partial(_read, url), EVENTS))


@benchmark("append_sealed", Goal(0.90, 0.97), "events/s")
def append_sealed(bench: Bench) -> Result:
    """With the sealer at work in a process of its own, and without."""
    with _log(bench, 2) as (events, _):
        url = events.recorder.pool.conninfo  # type: ignore[attr-defined]
        with following(url, sealer) as alive:

            def paced(sealed: bool) -> float:
                alive.send(sealed)
                alive.recv()
                return _writing(2, lambda: _append(events))

            result = compare(partial(paced, True), partial(paced, False), note="2 writers")
            alive.send(True)
            alive.recv()
        with connect(url, "verify") as connection:
            sealer(partial(connect, url, "sealer")).catch_up()
            found = verify(connection, TRUSTED)
            if not found.intact or found.unsealed:
                raise AssertionError(found)
        return result


def sealer(connect: Connect) -> Sealer:
    def durably() -> "Connection[Any]":
        """As a worker's, which waits for the disk."""
        connection = connect()
        connection.execute("SET synchronous_commit = on")
        return connection

    return Sealer(durably, SealingKeys(DataKeys([KEY])))
