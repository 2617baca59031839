"""Measurements out, in and missing, from the command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from projections.exports import Span
from projections.gaps import parsed_interval
from projections.measurements import Recorded
from projections.samples import Sample, record_telemetry
from tests.cli.conftest import Run

START = datetime(2026, 11, 1, tzinfo=UTC)
RANGE = ("--from", "2026-11-01", "--to", "2026-11-03")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A day at 10 s without its first hour, the next one whole, and two rows that are wrong."""
    path = tmp_path / "history.csv"
    times = [START + timedelta(seconds=10 * n) for n in range(360, 2 * 8640)]
    rows = [f"{time.isoformat()},{n % 100}" for n, time in enumerate(times)]
    path.write_text("\n".join(["time,soc", *rows[:100], "nonsense,1", *rows[100:], "2026-11-01,x"]))
    return path


@pytest.fixture
def acme(run: Run) -> Run:
    run("orgs", "create", "acme")
    run("plants", "register", "acme", "plant-7")
    run("plants", "register", "acme", "plant-8")
    return run


def test_history_is_imported_exported_and_its_gaps_found(acme: Run, file: Path, tmp_path: Path) -> None:
    words = ("measurements", "import", "acme", str(file), "--plant", "plant-7", "--on-error", "skip", "--json")
    count = 2 * 8640 - 360
    done = json.loads(acme(*words, status=1))
    seconds = done.pop("seconds")
    assert seconds > 0
    counts = {"what": "telemetry", "rows": count + 2, "rejected": 2}
    assert done == {**counts, **Recorded(new=count)._asdict()}
    assert json.loads(acme(*words, status=1)).items() >= {**counts, **Recorded(repeated=count)._asdict()}.items()
    rejects = (tmp_path / "history.csv.rejects.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rejects] == ["line", "102", str(count + 3)]
    assert not (tmp_path / "history.csv.importing").exists()

    out = tmp_path / "out.csv"
    acme("measurements", "export", "acme", "plant-7", *RANGE, "--out", str(out))
    assert len(out.read_text().splitlines()) == count + 1
    assert json.loads(acme("measurements", "import", "acme", str(out), "--json"))["repeated"] == count
    hours = tmp_path / "hours.parquet"
    as_hours = ("--bucket", "60", "--format", "parquet", "--out", str(hours))
    acme("measurements", "export", "acme", "plant-7", *RANGE, *as_hours)
    assert hours.read_bytes()[:4] == b"PAR1"

    gap = {"plant": "plant-7", "day": "2026-11-01", "everyS": 10.0, "expected": 8640, "received": 8280, "missing": 360}
    assert json.loads(acme("measurements", "gaps", "acme", *RANGE, "--json")) == [gap]
    assert "plant-7" in acme("measurements", "gaps", "acme", *RANGE)
    stated = json.loads(acme("measurements", "gaps", "acme", *RANGE, "--every", "10s", "--all", "--json"))
    assert [(row["plant"], row["missing"]) for row in stated] == [
        ("plant-7", 360), ("plant-7", 0), ("plant-8", 8640), ("plant-8", 8640)
    ]  # fmt: skip
    only = acme("measurements", "gaps", "acme", *RANGE, "--plant", "plant-8", "--every", "1m", "--json")
    assert [row["expected"] for row in json.loads(only)] == [1440, 1440]


def test_an_interrupted_import_goes_on(
    acme: Run, file: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(file.read_text().replace("nonsense,1\n", "").replace("\n2026-11-01,x", ""))
    batches = []

    def interrupted(connection: psycopg.Connection, samples: list[Sample], **options: timedelta) -> Recorded:
        batches.append(len(samples))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return record_telemetry(connection, samples, **options)  # type: ignore[arg-type]

    words = ("measurements", "import", "acme", str(file), "--plant", "plant-7", "--json")
    with monkeypatch.context() as patched:
        patched.setattr("projections.imports.record_telemetry", interrupted)
        acme(*words, status=130)
    assert batches == [10_000, 6_920]
    done = json.loads(acme(*words))
    assert (done["rows"], done["new"], done["repeated"]) == (16_920, 16_920, 0)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM telemetry").fetchone() == (16_920,)


def test_what_came_again_with_another_value_is_listed(acme: Run, database_url: str, tmp_path: Path) -> None:
    files = {
        "first.csv": "plant_id,time,soc,grid_power\nplant-7,2026-11-01T08:00:00Z,50,1.5\n",
        "other.csv": "plant_id,time,soc,grid_power\nplant-7,2026-11-01T08:00:00Z,51,1.5\n",
        "meter.csv": "plant_id,time,meter_id,energy_kwh\nplant-8,2026-11-01T08:00:00Z,main,7\n",
        "meter-again.csv": "plant_id,time,meter_id,energy_kwh\nplant-8,2026-11-01T08:00:00Z,main,8\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        acme("measurements", "import", "acme", str(tmp_path / name))
    listed = json.loads(acme("measurements", "conflicts", "acme", *RANGE, "--json"))
    assert all(row.pop("receivedAt") for row in listed)
    time = "2026-11-01T08:00:00Z"
    sample = {"plant": "plant-7", "meter": None, "time": time, "first": {"soc": 50.0}, "other": {"soc": 51.0}}
    reading = {"plant": "plant-8", "meter": "main", "time": time, "first": 7.0, "other": 8.0}
    assert sorted(listed, key=lambda row: row["plant"]) == [sample, reading]
    assert "plant-7" in acme("measurements", "conflicts", "acme", *RANGE)
    only = acme("measurements", "conflicts", "acme", *RANGE, "--plant", "plant-8", "--json")
    assert [row["plant"] for row in json.loads(only)] == ["plant-8"]
    assert json.loads(acme("measurements", "conflicts", "acme", "--to", "2026-11-01T08:00:00Z", "--json")) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("import", "acme", "FILE", "--plant", "plant-7"), "line 102: time: nonsense is no ISO 8601 date and time"),
        (("import", "acme", "FILE"), "line 2: plant_id: is missing"),
        (("import", "acme", "/nowhere.csv"), "No such file"),
        (("import", "acme", "FILE", "--plant", "plant-9"), "The organisation has no plant plant-9"),
        (("export", "acme", "plant-9"), "The organisation has no plant plant-9"),
        (("export", "acme", "plant-7", "--from", "noon"), "--from: noon is no ISO 8601 date and time"),
        (("export", "acme", "plant-7", "--from", "2020-01-01"), "days are too many: at most 366"),
        (("gaps", "acme", "--every", "often"), "often is no interval; write 10s, 500ms or 1m"),
    ],
)
def test_what_is_wrong_is_one_clear_line(acme: Run, file: Path, words: tuple[str, ...], says: str) -> None:
    message = acme("measurements", *[str(file) if word == "FILE" else word for word in words], status=2)
    assert says in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("500ms", 0.5), ("1m", 60), (" 2.5s ", 2.5)])
def test_an_interval(text: str, seconds: float) -> None:
    assert parsed_interval(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "s", "10", "-1s", "0s", "1h", "nans", "infs"])
def test_no_interval(text: str) -> None:
    with pytest.raises(ValueError, match="is no interval"):
        parsed_interval(text)


def test_a_range_is_cut_at_midnight() -> None:
    span = Span(START + timedelta(hours=20), START + timedelta(days=2))
    assert [(a.day, b.day) for a, b in span.days()] == [(1, 2), (2, 3)]
