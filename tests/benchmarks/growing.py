"""What a hundred times more rows cost: ingest and a day's query, run on request by `--large`."""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from psycopg import AsyncConnection, Connection

from infra.postgres import connect
from projections.measurements import Window
from projections.samples import record_telemetry
from projections.telemetry import telemetry
from tests.benchmarks.harness import ROUNDS, Bench, Goal, Result, benchmark
from tests.benchmarks.measured import fill
from tests.measurements.plant_messages import sample

END = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
STEP = timedelta(seconds=10)
# Plants and days, of 8 640 samples each: a million rows, and up to a hundred.
SMALL, LARGE = (116, 1), 1_000
TIMES = 24
Figures = tuple[float, float]


@benchmark("growth", Goal(0.8, 0.95), "samples/s", large=True)
def growth(bench: Bench) -> Result:
    """Samples a second that go in."""
    (ours, _), (baseline, _) = _figures(bench)
    return Result(ours, baseline, f"{bench.millions} million rows against one")


@benchmark("growth_day", Goal(1.5, 1.1, lower=True), "ms, p50", large=True)
def growth_day(bench: Bench) -> Result:
    (_, ours), (_, baseline) = _figures(bench)
    return Result(ours, baseline)


def _figures(bench: Bench) -> tuple[Figures, Figures]:
    """Samples a second and the p50 of a day's query (ms), of the large store and of the small: medians of rounds that
    take turns."""
    if "growth" not in bench.shared:
        with bench.database() as large, bench.database() as small:
            days = max(1, round(bench.millions / 8.64))
            stores = [_Store(large, LARGE, days), _Store(small, *SMALL)]
            rounds = [[store.round() for store in stores] for _ in range(ROUNDS + 1)][1:]
            for store in stores:
                store.connection.close()
        bench.shared["growth"] = [
            tuple(statistics.median(each[store][figure] for each in rounds) for figure in (0, 1)) for store in (0, 1)
        ]
    large_figures, small_figures = bench.shared["growth"]
    return large_figures, small_figures


class _Store:
    """The same load for each: as many plants send, however many more there are."""

    def __init__(self, url: str, plants: int, days: int) -> None:
        self.url = url
        self.plants: list[UUID] = sorted(uuid4() for _ in range(plants))
        self.connection: Connection[tuple[object, ...]] = connect(url, "bench")
        fill(self.connection, self.plants, END - days * DAY, days)
        self._sending = self.plants[:: plants // SMALL[0]][: SMALL[0]]
        self._time = END

    def round(self) -> Figures:
        return self._ingest(), self._ask()

    def _ingest(self) -> float:
        took, count = 0.0, 0
        for _ in range(10):
            times = [self._time + n * STEP for n in range(TIMES)]
            self._time = times[-1] + STEP
            batch = [sample(plant, moment) for moment in times for plant in self._sending]
            begin = time.perf_counter()
            count += record_telemetry(self.connection, batch, now=END + 10 * DAY).new
            took += time.perf_counter() - begin
        return count / took

    def _ask(self) -> float:
        window, waits = Window.of(END - DAY, END), []
        with asyncio.Runner() as runner:
            connection = runner.run(AsyncConnection.connect(self.url, autocommit=True))
            for plant in self._sending:
                begin = time.perf_counter()
                runner.run(telemetry(connection, plant, window))
                waits.append((time.perf_counter() - begin) * 1000)
            runner.run(connection.close())
        return statistics.median(waits)
