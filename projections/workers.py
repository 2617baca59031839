"""The bulk load of a rebuild in several processes, each with the streams that fall to it."""

import multiprocessing
import signal
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

from projections.loading import Decode, Share, load
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
    """As `loading.load`; `report` gets the position that they have reached on average."""
    context = _context()
    reached = dict.fromkeys(range(workers), 0)
    postponed: dict[str, list[int]] = defaultdict(list)
    with ExitStack() as stack:
        pipes: dict[Pipe, int] = {}
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (connect, decode, read_models, Share(end, number, workers), theirs, [*pipes, ours])
            process = context.Process(target=_work, args=arguments, name=f"rebuild-{number}", daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            theirs.close()
            pipes[ours] = number
        while pipes:
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Pipe)
                message = _receive(pipe)
                if isinstance(message, int):
                    reached[pipes[pipe]] = message
                    report(sum(reached.values()) // workers)
                else:
                    for name, positions in message.items():
                        postponed[name] += positions
                    del pipes[pipe]
    return {name: sorted(positions) for name, positions in postponed.items()}


def _context() -> Any:
    """A fork starts at once, but is safe only while nobody holds locks that it would copy."""
    return multiprocessing.get_context("fork" if threading.active_count() == 1 else "spawn")


def _receive(pipe: Pipe) -> Any:
    try:
        message = pipe.recv()
    except EOFError:
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
    try:
        with connect() as alive:
            # The next rebuild waits for this lock, so that nobody is left who might still write.
            alive.execute("SELECT pg_advisory_lock_shared(%s, 2)", [LOCK_CLASS])
            pipe.send(load(connect, decode, read_models, share, pipe.send))
    except BrokenPipeError:
        return
    except Exception:  # noqa: BLE001 - the parent raises it
        pipe.send(traceback.format_exc())
