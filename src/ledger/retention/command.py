"""What `ledger retention` says."""

from collections.abc import Iterator

from ledger.retention.jobs import STEPS, Retained


def told(retained: Retained, *, is_dry: bool) -> Iterator[str]:
    """A line for each kind of thing that something was, or would be, done to; and one in the end."""
    if retained.runs_elsewhere:
        yield "Retention is under way already, started by the worker or by somebody else. Nothing was done."
        return
    for step in STEPS:
        if retained.counts.get(step.name):
            yield f"{retained.counts[step.name]:>9} {step.phrase}"
    if not retained.total:
        yield "Nothing is due." if is_dry else "Nothing was due."
    elif is_dry:
        yield "Nothing was changed. Without --dry-run this would be done now; the worker does it daily."
    else:
        yield "Done. Amounts, numbers, dates and states stayed as they are."
