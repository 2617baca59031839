"""`python -m tests.benchmarks [NAME…] [--json FILE]`: runs benchmarks and prints how ours stands to each baseline."""

import argparse
import json
import os
import pkgutil
import platform
import sys
from importlib import import_module
from pathlib import Path

from tests import benchmarks
from tests.benchmarks.harness import BENCHMARKS, Benchmark, Result, bench

ROW = "{:<20} {:>12} {:>12} {:>7}  {:<15} {:<4} {}"


def main() -> int:
    # By its own name, not as __main__: both must see one registry.
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if not module.name.startswith("__"):
            import_module(f"tests.benchmarks.{module.name}")
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--large", action="store_true", help="run those that take very long, too")
    parser.add_argument(
        "--millions", type=int, default=100, metavar="N", help="rows of those (100), where disk is short"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = [each for name, each in BENCHMARKS.items() if name in (options.names or BENCHMARKS)]
    if not options.large and not options.names:
        chosen = [each for each in chosen if not each.large]
    results = _run(chosen, options.millions)
    if options.json:
        options.json.write_text(json.dumps({each.name: _plain(each, results[each.name]) for each in chosen}, indent=2))
    return 0


def _run(chosen: list[Benchmark], millions: int) -> dict[str, Result]:
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    print(ROW.format("name", "ours", "baseline", "ratio", "goal (stretch)", "met", ""))
    results = {}
    with bench(millions) as servers:
        for each in chosen:
            result = results[each.name] = each.run(servers)
            print(_row(each, result))
            sys.stdout.flush()
    return results


def _figure(result: Result) -> float:
    return result.ours if result.ratio is None else result.ratio


def _row(each: Benchmark, result: Result) -> str:
    baseline = "" if result.baseline is None else f"{result.baseline:,.1f}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    met = "yes" if each.goal.met(_figure(result)) else "no"
    return ROW.format(
        each.name, f"{result.ours:,.1f}", baseline, ratio, str(each.goal), met, f"{each.unit} {result.note}"
    )


def _plain(each: Benchmark, result: Result) -> dict[str, object]:
    return {
        "ours": result.ours,
        "baseline": result.baseline,
        "ratio": result.ratio,
        "unit": each.unit,
        "goal": str(each.goal),
        "met": each.goal.met(_figure(result)),
    }


if __name__ == "__main__":
    sys.exit(main())
