"""A short soak; the long one is `make soak`."""

from tests.soak.run import soak, table


def test_what_was_confirmed_stays_though_everything_dies() -> None:
    report = soak(10, seed=7, pause_s=0.2, patient=False)
    assert report.holds, table(report)
