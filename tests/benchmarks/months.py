"""An organisation whose plants measured for a month: what queries are measured on, over HTTP and without."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.context import Metadata, acting
from infra.bootstrap import Where, assembled
from infra.postgres import connect
from infra.secret_box import OperatorKey
from projections.measurements import Window
from tests.benchmarks.asking import request
from tests.benchmarks.harness import Bench
from tests.benchmarks.measured import fill
from tests.benchmarks.served import SETTINGS
from tests.http.world import following

PLANTS = 50
DAYS = 30
# Of a month that is over: all of it lies inside one partition of the roll-ups, as in the measurement behind the goals.
START = datetime(2026, 10, 1, tzinfo=UTC)
DAY = Window.of(START + timedelta(days=14), START + timedelta(days=15), 5)
MONTH = Window.of(START, START + timedelta(days=DAYS), 5)
DAY_QUERY = f"from={DAY.start:%FT%TZ}&to={DAY.end:%FT%TZ}"


@dataclass(frozen=True)
class Months:
    where: Where
    organization_id: UUID
    plants: list[UUID]
    headers: dict[str, str]

    def requests(self, path: str) -> list[bytes]:
        """One of each plant."""
        return [request(path.format(plant), self.headers) for plant in self.plants]


def months_of(bench: Bench) -> Months:
    """An organisation whose plants measured every 10 s for DAYS days."""
    if "months" not in bench.shared:
        where = Where(bench.exit.enter_context(bench.database()), None, [OperatorKey.random()], [])
        with assembled(where, SETTINGS) as parts, acting(Metadata(actor="cli", source="cli")):
            organization_id = parts.organisations.create("acme").id
            key = parts.organisations.mint_key(organization_id, "bench", ["trading:read", "trading:audit"])
            plants = [parts.plants.register(organization_id, f"esm-{n}", f"Plant {n}").id for n in range(PLANTS)]
        with connect(where.database_url, "bench") as connection:
            with following(where.database_url):
                while connection.execute("SELECT 1 FROM api_keys").fetchone() is None:
                    time.sleep(0.05)
            fill(connection, plants, START, DAYS)
        bench.shared["months"] = Months(where, organization_id, plants, {"X-API-Key": key.api_key})
    months: Months = bench.shared["months"]
    return months
