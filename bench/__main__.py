"""`python -m bench`: measures; `python -m bench compare A B`: puts two runs side by side.

It measures and does not judge: the exit code is 0 also when a guarantee is missed, and 1 when something broke.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.figures import ALL, FULL, QUICK, measure
from bench.installation import BenchFailed, databases
from bench.load import LoadFailed
from bench.pgbench import STATEMENT, PgbenchFailed
from bench.report import RESULTS, comparison_of, make_report, read_report, save_report, table_of
from ledger.embedded import EmbeddedPostgresError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "compare":
            print(comparison_of(read_report(parsed.before), read_report(parsed.after)))
        elif parsed.command == "statement":
            print(STATEMENT, end="")
        else:
            _measure(parsed.only or ALL, is_quick=parsed.quick)
    except (BenchFailed, LoadFailed, PgbenchFailed, EmbeddedPostgresError, subprocess.TimeoutExpired) as error:
        print(f"The bench broke: {error}", file=sys.stderr)
        return 1
    except (OSError, msgspec.MsgspecError) as error:
        print(f"A run cannot be read or kept: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures what Ledger guarantees about speed.")
    parser.add_argument("--quick", action="store_true", help="a minute instead of five, for trying")
    parser.add_argument("--only", nargs="+", choices=ALL, metavar="FIGURE", help=f"some of {', '.join(ALL)}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    compare = commands.add_parser("compare", help="put two runs side by side")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    commands.add_parser("statement", help="print the statement that pgbench runs")
    return parser


def _measure(wanted: Sequence[str], *, is_quick: bool) -> None:
    load_average = os.getloadavg()[0]
    RESULTS.mkdir(parents=True, exist_ok=True)
    # Beside the results and not in the system's temporary directory: that may be memory, where fsync costs nothing.
    with (
        tempfile.TemporaryDirectory(prefix="data-", dir=RESULTS, ignore_cleanup_errors=True) as folder,
        databases(Path(folder)) as made,
    ):
        figures = measure(
            wanted,
            plan=QUICK if is_quick else FULL,
            databases=made,
            folder=Path(folder),
            tell=lambda said: print(f"… {said}", file=sys.stderr, flush=True),
        )
    report = make_report(figures, is_quick=is_quick, load_average=load_average)
    path = save_report(report)
    print(table_of(report))
    print(f"Kept as {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    sys.exit(main())
