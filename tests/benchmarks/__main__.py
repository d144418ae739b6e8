"""Run the benchmarks: `python -m tests.benchmarks [part of a name]`, or `invoke dev.bench`.

Every figure is a ratio of medians, ours and a peer's, measured in turns in one run: the machine's mood hits both. Exit
code 1 when a ratio is over its limit.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tabulate import tabulate

from .harness import Figure


def main(wanted: str) -> int:
    figures: list[Figure] = []
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"tests.benchmarks.{path.stem}")
        for name, measure in vars(module).items():
            if name.startswith("bench_") and wanted in f"{path.stem}.{name}":
                print(f"{path.stem}.{name} ...", file=sys.stderr, flush=True)
                figures += measure()
    headers = ("figure", "ours", "peer", "peer's", "ratio", "limit", "")
    print(tabulate([figure.row for figure in figures], headers=headers, tablefmt="github", disable_numparse=True))
    return 0 if all(figure.holds for figure in figures) else 1


sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
