"""What was measured, as a table for people and as a file for comparing two runs."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.figure import Figure

RESULTS = Path(__file__).parent / "results"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `load_average` is the machine's over the minute before the run: above 0.5 somebody else was busy."""

    measured_at: datetime
    is_quick: bool
    cpus: int
    python: str
    load_average: float
    figures: Sequence[Figure]


def make_report(figures: Sequence[Figure], *, is_quick: bool, load_average: float) -> Report:
    return Report(
        measured_at=datetime.now(UTC),
        is_quick=is_quick,
        cpus=os.cpu_count() or 1,
        python=platform.python_version(),
        load_average=load_average,
        figures=figures,
    )


def save_report(report: Report) -> Path:
    """Keeps the run under `bench/results`, named by its time."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{report.measured_at:%Y-%m-%dT%H-%M-%S}{'-quick' if report.is_quick else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return path


def read_report(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def table_of(report: Report) -> str:
    """The figures, their targets, the medians with the spread of their pairs, and what they come from."""
    rows = [("", "figure", "target", "measured", "spread", "")]
    for each in report.figures:
        target = f"{'≥' if each.bound == 'at least' else '≤'} {each.target:g} {each.unit}"
        spread = f"{min(each.pairs):.2f} … {max(each.pairs):.2f}"
        verdict = "pass" if each.is_kept else "FAIL"
        rows.append((each.key, each.what, target, f"{each.measured:.2f} {each.unit}", spread, verdict))
    lines = _aligned(rows)
    lines += ["", "Medians behind them:"]
    lines += [
        f"  {each.key}  {name}: {statistics.median(values):.6g}"
        for each in report.figures
        for name, values in each.absolutes.items()
    ]
    lines.append("")
    lines.append(
        f"{report.cpus} CPUs, Python {report.python}, load average {report.load_average:.2f} when it began"
        + (", quick: for trying, not for quoting" if report.is_quick else "")
        + "."
    )
    failed = sorted({each.key for each in report.figures if not each.is_kept})
    lines.append(f"FAIL: {', '.join(failed)}" if failed else "Every measured guarantee is kept.")
    return "\n".join(lines)


def comparison_of(before: Report, after: Report) -> str:
    """The figures that both runs have, side by side, with the change."""
    rows = [("", "figure", "before", "after", "change", "")]
    found = {(each.key, each.what): each for each in before.figures}
    for each in after.figures:
        earlier = found.get((each.key, each.what))
        if earlier is None:
            continue
        change = each.measured / earlier.measured - 1
        better = (change > 0) == (each.bound == "at least")
        # Within the spread of both runs it is noise.
        is_noise = min(each.pairs) <= earlier.measured <= max(each.pairs)
        verdict = "within the noise" if is_noise else "better" if better else "worse"
        rows.append(
            (
                each.key,
                each.what,
                f"{earlier.measured:.2f} {each.unit}",
                f"{each.measured:.2f} {each.unit}",
                f"{change:+.0%}",
                verdict,
            )
        )
    return "\n".join(_aligned(rows))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
