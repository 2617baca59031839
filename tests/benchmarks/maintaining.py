"""The write side during VACUUM and CREATE INDEX CONCURRENTLY: what the slowest appends wait for."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from psycopg import Connection

from tests.benchmarks.appending import WHO, _append, _insert, _log, _stored
from tests.benchmarks.harness import Bench, Goal, Result, benchmark, compare, percentile


@benchmark("append_maintenance", Goal(2, 1.2, lower=True), "ms, p99")
def append_maintenance(bench: Bench) -> Result:
    """During VACUUM and CREATE INDEX CONCURRENTLY on the events, which have a core of their own.

    Where two cores are shared, the kernel may let an append wait for the builder's whole slice though the other core is
    idle: the slowest then take as long as that slice, whoever appends. The note tells how it is so.
    """
    with _log(bench, 2) as (events, raw):
        # So many that the work on them takes longer than its own commits.
        for _ in range(100):
            events.recorder.insert_events([_stored() for _ in range(2000)], metadata=WHO)

        def quiet(append: Callable[[], object]) -> float:
            return percentile(_latencies(append, threading.Event()), 99)

        def maintained(append: Callable[[], object], apart: bool) -> float:
            done = threading.Event()
            with raw.connection() as maintainer, _own_core(maintainer) if apart else nullcontext():
                thread = threading.Thread(target=_maintain, args=(maintainer, done))
                thread.start()
                try:
                    return percentile(_latencies(append, done), 99)
                finally:
                    done.set()
                    thread.join()

        ours, bare = partial(_append, events), partial(_insert, raw, 1)
        others = {
            "ours, cores shared": compare(lambda: maintained(ours, False), lambda: quiet(ours)),
            "a bare INSERT": compare(lambda: maintained(bare, True), lambda: quiet(bare)),
            "it, cores shared": compare(lambda: maintained(bare, False), lambda: quiet(bare)),
        }
        note = "; ".join(f"{name}: {result.ours:.1f}, ratio {result.ratio:.2f}" for name, result in others.items())
        return compare(lambda: maintained(ours, True), lambda: quiet(ours), note=note)


def _latencies(append: Callable[[], object], done: threading.Event) -> list[float]:
    """In ms, of a thousand appends one after the other; then it is `done`."""
    times: list[float] = []
    while len(times) < 1000:
        begin = time.perf_counter()
        append()
        times.append((time.perf_counter() - begin) * 1000)
    done.set()
    return times


def _maintain(connection: Connection[Any], done: threading.Event) -> None:
    # What one says who has two cores and wants to serve meanwhile.
    connection.execute("SET max_parallel_maintenance_workers = 0")
    while not done.is_set():
        connection.execute("VACUUM events")
        connection.execute("CREATE INDEX CONCURRENTLY maintained ON events (topic)")
        connection.execute("DROP INDEX CONCURRENTLY maintained")


@contextmanager
def _own_core(connection: Connection[Any]) -> Iterator[None]:
    """Keeps the session's process on one core; this thread and all others of the server on the rest. Linux only."""
    cores = os.sched_getaffinity(0)
    one = {max(cores)}
    others = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]

    def place(session: set[int], rest: set[int]) -> None:
        os.sched_setaffinity(connection.info.backend_pid, session)
        for process in (0, *others):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process, rest)

    place(one, cores - one or one)
    try:
        yield
    finally:
        place(cores, cores)
