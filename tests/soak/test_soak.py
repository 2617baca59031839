"""A short soak, run on request; the long one is `make soak`."""

import pytest

from tests.soak.run import soak, table


@pytest.mark.bench
def test_what_was_confirmed_stays_though_everything_dies() -> None:
    report = soak(12, seed=7, pause_s=0.2, patient=False)
    assert report.holds, table(report)
