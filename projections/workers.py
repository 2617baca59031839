"""The bulk load of a rebuild in several processes, each with its share of the ranges of the log."""

import gc
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

from psycopg import Connection

from projections.loading import Counts, Decode, Share, load
from projections.read_model import ReadModel
from projections.slots import Connect

LOCK_CLASS = 1463899224


class WorkerFailed(Exception):
    """A worker process ended before its work"""


def load_in_parallel(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    end: int,
    workers: int,
    report: Callable[[int], None],
) -> dict[str, list[int]]:
    """As `loading.load`, of which it returns the postponed positions; `report` gets how far they have come as one."""
    context = _context()
    postponed: dict[str, list[int]] = defaultdict(list)
    done: dict[Pipe, int] = {}
    with ExitStack() as stack:
        pipes: dict[Pipe, int] = {}
        for number in range(workers):
            ours, theirs = context.Pipe()
            arguments = (connect, decode, read_models, Share(end, number, workers), theirs, [*pipes, ours])
            process = context.Process(target=_work, args=arguments, name=f"rebuild-{number}", daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            theirs.close()
            pipes[ours] = number
        numbers = _Numbers(list(pipes))
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Pipe)
                match _receive(pipe):
                    case list() as counts:
                        numbers.take(pipe, counts)
                    case int() as events:
                        done[pipe] = events
                        report(sum(done.values()))
                    case dict() as positions_of:
                        for name, positions in positions_of.items():
                            postponed[name] += positions
                        del pipes[pipe]
    return {name: sorted(positions) for name, positions in postponed.items()}


class _Numbers:
    """Answers workers in the order of the log's ranges, which they take turns at."""

    def __init__(self, pipes: Sequence[Pipe]):
        self._pipes = pipes
        self._next = 0
        self._waiting: dict[Pipe, Counts] = {}
        self._totals: Counts = []

    def take(self, pipe: Pipe, counts: Counts) -> None:
        self._waiting[pipe] = counts
        while (following := self._pipes[self._next % len(self._pipes)]) in self._waiting:
            self._answer(following, self._waiting.pop(following))
            self._next += 1

    def _answer(self, pipe: Pipe, counts: Counts) -> None:
        self._totals = self._totals or [[Counter() for _ in columns] for columns in counts]
        pairs = [list(zip(*pair, strict=True)) for pair in zip(self._totals, counts, strict=True)]
        # No more than it asks for: there may be many groups.
        with suppress(ConnectionError):  # one that was killed is found when it is listened to
            pipe.send([[Counter({group: total[group] for group in count}) for total, count in each] for each in pairs])
        for each in pairs:
            for total, count in each:
                total.update(count)


def _context() -> Any:
    """A fork starts at once, but is safe only while nobody holds locks that it would copy."""
    return multiprocessing.get_context("fork" if threading.active_count() == 1 else "spawn")


def _receive(pipe: Pipe) -> Any:
    try:
        message = pipe.recv()
    except (EOFError, ConnectionError):
        raise WorkerFailed("a worker of the rebuild was killed") from None
    if isinstance(message, str):
        raise WorkerFailed(message)
    return message


def _work(
    connect: Connect,
    decode: Decode,
    read_models: Sequence[ReadModel[Any]],
    share: Share,
    pipe: Pipe,
    others: Sequence[Pipe],
) -> None:
    # Ctrl-C reaches the whole group; the parent ends us. Should it be killed, the next report finds nobody: that needs
    # every copy of its ends of the pipes closed that a fork left us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in others:
        other.close()

    def alive() -> "Connection[Any]":
        """The next rebuild waits for this lock, so that nobody is left who might still write."""
        connection = connect()
        connection.execute("SELECT pg_advisory_lock_shared(%s, 2)", [LOCK_CLASS])
        return connection

    def numbered_before(counts: Counts) -> Counts:
        pipe.send(counts)
        before: Counts = pipe.recv()
        return before

    gc.disable()
    try:
        loaded = load(alive, decode, read_models, share, pipe.send, numbered_before)
        pipe.send(loaded.postponed)
        os._exit(0)  # with all that was loaded
    except (EOFError, ConnectionError):
        return
    except Exception:  # noqa: BLE001 - the parent raises it
        pipe.send(traceback.format_exc())
