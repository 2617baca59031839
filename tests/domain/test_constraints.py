"""Which band is in force when, and when it is left and kept."""

import pytest

from domain.constraints import Band, DayBands
from tests.examples import block

PLAN = [
    block("12:00", "23:59", pBatMin=-5.0, pBatMax=5.0).as_json(),
    block("06:00", "12:00", socMin=20.0, socMax=80.0).as_json(),
]


@pytest.mark.parametrize(
    ("at", "power", "soc"),
    [
        ((6, 0), 50, 80), ((11, 59), 50, 80), ((12, 0), 5, 90), ((23, 58), 5, 90), ((23, 59), 5, 90),
        ((5, 59), None, None), ((0, 0), None, None),
    ],
)  # fmt: skip
def test_the_block_in_force(at: tuple[int, int], power: float | None, soc: float | None) -> None:
    bands = DayBands(PLAN).at(at[0] * 60 + at[1])
    assert [bands[name].maximum if name in bands else None for name in ("BATTERY_POWER", "SOC")] == [power, soc]


def test_noise_is_no_violation_and_an_alarm_does_not_flicker() -> None:
    band = DayBands([block().as_json()]).at(0)["BATTERY_POWER"]
    assert band == Band(-50, 50, 1.0)
    for value, left, kept in (
        (50, 0, 1),
        (50.5, 0, 1),
        (50.6, 0, 0),
        (51, 0, 0),
        (51.1, 1, 0),
        (-51.1, 1, 0),
        (0, 0, 1),
    ):
        assert (band.is_left_by(value), band.is_kept_by(value)) == (bool(left), bool(kept))
    assert DayBands([block(pBatMin=0, pBatMax=0).as_json()]).at(0)["BATTERY_POWER"].noise == 0.1
    assert DayBands([block().as_json()]).at(0)["SOC"].noise == 1.0
