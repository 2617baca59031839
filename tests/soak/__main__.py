"""`python -m tests.soak [--minutes 10] [--seed N] [--json FILE]`: exit status 1 if anything is lost or untrue."""

import argparse
import json
import logging
import random
import sys
from pathlib import Path

from tests.soak.run import soak, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the schedule of faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    sys.stdout.write(f"seed {options.seed}, {options.minutes:g} minutes\n")
    sys.stdout.flush()
    logging.getLogger("infra").setLevel(logging.ERROR)  # of the load's own connections, lost on purpose
    report = soak(options.minutes * 60, options.seed)
    sys.stdout.write(table(report) + "\n")
    if options.json:
        told = {"seed": options.seed, "recoveries": report.recoveries, "untrue": report.untrue, "load": report.load}
        options.json.write_text(json.dumps({**told, "wrong": report.wrong}, indent=2))
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
