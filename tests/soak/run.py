"""One run: the installation comes up, the load begins, faults come on a seeded schedule, and then all is quiet."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from application.context import Metadata, acting
from application.trading import TradingConfigChange
from domain.plant import Plant
from infra.bootstrap import Where, assembled
from infra.sandbox.esm import CLIENT_ID, CLIENT_SECRET
from infra.settings import Settings
from tests.soak.installation import Installation, installed
from tests.soak.load import Books, Load, Site
from tests.soak.verdict import settled, verdict

RECOVERY_PATIENCE_S = 120.0
QUIET_S = 300.0
LONGEST_OPEN_S = 75.0


@dataclass(frozen=True)
class Report:
    """`recoveries` are seconds by fault; `untrue` counts what must not be; `load` counts what was confirmed."""

    recoveries: dict[str, list[float]]
    slowest: dict[str, str]
    untrue: dict[str, int]
    load: dict[str, int]
    wrong: list[str]

    @property
    def holds(self) -> bool:
        return not any(self.untrue.values())


def soak(seconds: float, seed: int, *, pause_s: float = 1.0, patient: bool = True) -> Report:
    """`pause_s` is the mean time between a recovery and the next fault; `patient` also asks again, after a minute, what
    a killed API had in hand."""
    chance = random.Random(seed)
    with installed() as installation:
        site = _prepare(installation)
        load = Load(site, installation.api_urls, installation.amqp_url, seed)
        try:
            return _under(load, installation, chance, seconds, pause_s, patient)
        finally:
            load.stopping.set()
            load.close()


def _under(
    load: Load, installation: Installation, chance: random.Random, seconds: float, pause_s: float, patient: bool
) -> Report:
    recoveries: dict[str, list[float]] = defaultdict(list)
    slowest: dict[str, str] = {}
    load.start()
    _recovered(load.books, time.monotonic())
    faults = installation.faults(lambda: time.sleep(chance.uniform(0.5, 4)), chance.randrange(10_000))
    end = time.monotonic() + seconds
    waiting: list[str] = []
    while time.monotonic() < end:
        waiting = waiting or chance.sample(sorted(faults), len(faults))
        name = waiting.pop()
        faults[name]()
        took, kind = _recovered(load.books, time.monotonic())
        if took >= max(recoveries[name], default=0.0):
            slowest[name] = kind
        recoveries[name].append(took)
        time.sleep(chance.uniform(0, 2 * pause_s))
    load.stop()
    if patient:
        load.drain(LONGEST_OPEN_S)
    _until(lambda: settled(installation.url, load.books), QUIET_S)
    return Report(
        dict(recoveries),
        slowest,
        verdict(installation.url, installation.key, load.books),
        _counts(load.books),
        load.books.wrong,
    )


def _counts(books: Books) -> dict[str, int]:
    return {
        "config changes": len(books.configs),
        "of them still unanswered": len(books.open_configs),
        "plant changes": len(books.changes),
        "commands": len(books.commands),
        "repeats to plants": sum(ids.total() - len(ids) for ids in books.told.values()),
        "samples": len(books.samples),
        **{f"HTTP {status}": count for status, count in sorted(books.statuses.items())},
    }


def _recovered(books: Books, since: float) -> tuple[float, str]:
    """Until every kind of work that was begun after that moment has succeeded: seconds, and which was the last."""
    wanted = {"read-1", "read-2", "write-1", "write-2", "command"}
    seen, at = 0, since
    first: dict[str, float] = {}
    while wanted - first.keys():
        fresh = books.successes[seen:]
        seen += len(fresh)
        for kind, begun, ended in fresh:
            if begun >= since and kind in wanted:
                first.setdefault(kind, ended)
        at = time.monotonic()
        if at - since > RECOVERY_PATIENCE_S:
            missing = ", ".join(sorted(wanted - first.keys()))
            books.wrong.append(f"no {missing} within {RECOVERY_PATIENCE_S:g} s")
            return at - since, missing
        time.sleep(0.01)
    last = max(first, key=lambda kind: first[kind])
    return first[last] - since, last


def _prepare(installation: Installation) -> Site:
    """Two organisations, made as the command line makes them; then every program starts."""
    for program in installation.programs.values():
        program.start()
    where = Where(installation.url, installation.amqp_url, [installation.key], ["127.0.0.0/8"])
    with assembled(where, Settings()) as parts, acting(Metadata(actor="cli", source="cli")):
        acme = parts.organisations.create("acme").id
        changer = parts.organisations.create("changer").id
        admin = parts.organisations.mint_key(acme, "admin", ["trading:admin"])
        partner = parts.organisations.mint_key(acme, "esm", ["trading:connect"])
        changes = parts.organisations.mint_key(changer, "admin", ["trading:admin"])
        given = {
            "esmApiUrl": f"http://127.0.0.1:{installation.esm_port}",
            "esmClientId": CLIENT_ID,
            "esmClientSecret": CLIENT_SECRET,
        }
        parts.trading.change_config(acme, TradingConfigChange.model_validate(given))
        parts.trading.enable(acme)
        count = parts.plants.sync(acme).synced
    _until(lambda: settled(installation.url, Books()), RECOVERY_PATIENCE_S)  # keys and plants are known
    plants = [(Plant.create_id(acme, f"esm-{n:03d}"), f"esm-{n:03d}") for n in range(1, count + 1)]
    return Site(plants, admin.api_key, partner.signing_key, changes.api_key)


def _until(holds: Callable[[], bool], seconds: float) -> None:
    """What does not hold in time is told by the verdict."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.2)


def table(report: Report) -> str:
    row = "{:<24}{:>6}{:>10}{:>10}  {}"
    lines = [row.format("fault", "times", "p50 s", "max s", "the last to recover")]
    for name, took in sorted(report.recoveries.items()):
        figures = f"{statistics.median(took):.2f}", f"{max(took):.2f}"
        lines.append(row.format(name, len(took), *figures, report.slowest[name]))
    lines += ["", *(f"{count:>9,} {what}" for what, count in report.load.items())]
    lines += ["", *(f"{count:>9,} {what}" for what, count in report.untrue.items())]
    return "\n".join([*lines, *report.wrong[:20]])
