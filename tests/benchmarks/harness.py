"""How benchmarks are run: their servers, their rounds, their goals, and the registry that they enter by a decorator."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from infra.embedded import EmbeddedPostgres, PrivateRabbitmq
from tests.servers import database, make_template, virtual_host

ROUNDS = 5

# Everything waits for the disk as in production: fsync and synchronous_commit stay on. Autovacuum and checkpoints,
# which come when they like, would hit one side of a comparison and not the other.
DURABLE = {"autovacuum": "off", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "shared_buffers": "1GB"}


@dataclass(frozen=True)
class Goal:
    """`must` and `stretch` of a ratio, or of milliseconds when `ms`; a higher figure is better unless `lower`."""

    must: float
    stretch: float
    lower: bool = False
    ms: bool = False

    def met(self, figure: float) -> bool:
        return figure <= self.must if self.lower else figure >= self.must

    def __str__(self) -> str:
        sign, unit = "≤" if self.lower else "≥", " ms" if self.ms else ""
        return f"{sign} {self.must:g}{unit} ({self.stretch:g})"


@dataclass(frozen=True)
class Result:
    """`baseline` is None where the goal is a time; then `ours` is in ms. `note` stands in the table's last column."""

    ours: float
    baseline: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.baseline is None else self.ours / self.baseline


@dataclass
class Bench:
    """What benchmarks run on: servers of their own, started when first asked for, on a real disk."""

    home: Path
    exit: ExitStack
    millions: int = 100
    """Rows of those that are large."""
    shared: dict[str, Any] = field(default_factory=dict)
    """What is costly to make and not changed by those who use it, by a name that says what it is."""
    _postgres: EmbeddedPostgres | None = None
    _rabbitmq: PrivateRabbitmq | None = None
    _template: str = ""

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new migrated database."""
        if self._postgres is None:
            self._postgres = self.exit.enter_context(EmbeddedPostgres(self.home, settings=DURABLE))
            self._template = make_template(self._postgres)
        with database(self._postgres, self._template) as url:
            yield url
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    @contextmanager
    def virtual_host(self) -> Iterator[str]:
        """The URL of a new virtual host of RabbitMQ."""
        if self._rabbitmq is None:
            self._rabbitmq = self.exit.enter_context(PrivateRabbitmq(self.home, plugins=["rabbitmq_management"]))
        with virtual_host(self._rabbitmq) as url:
            yield url


@dataclass(frozen=True)
class Benchmark:
    name: str
    goal: Goal
    unit: str
    run: Callable[[Bench], Result] = field(repr=False)
    large: bool = False


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(
    name: str, goal: Goal, unit: str, *, large: bool = False
) -> Callable[[Callable[[Bench], Result]], Callable[[Bench], Result]]:
    """Enters a function into the registry; a large one runs on request only."""

    def enter(run: Callable[[Bench], Result]) -> Callable[[Bench], Result]:
        BENCHMARKS[name] = Benchmark(name, goal, unit, run, large)
        return run

    return enter


@contextmanager
def bench(millions: int = 100) -> Iterator[Bench]:
    """In a directory that is on a disk: /tmp is memory on some machines, /var/tmp on none."""
    disk = Path("/var/tmp")
    home = Path(tempfile.mkdtemp(prefix="wattledger-bench-", dir=disk if disk.is_dir() else None))
    home.chmod(0o755)
    try:
        with ExitStack() as stack:
            yield Bench(home, stack, millions)
    finally:
        shutil.rmtree(home)


def compare(
    ours: Callable[[], float], baseline: Callable[[], float], *, rounds: int = ROUNDS, note: str = ""
) -> Result:
    """The medians of interleaved rounds, after one round of each that doesn't count."""
    ours()
    baseline()
    figures = [(ours(), baseline()) for _ in range(rounds)]
    first, second = (statistics.median(each) for each in zip(*figures, strict=True))
    return Result(first, second, note)


def rate(work: Callable[[], Any], count: int) -> float:
    """`count` a second, for work that does that many."""
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
