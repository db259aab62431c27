"""When the reconciler looks at something whose outcome is not known: soon, then with growing distance."""

from datetime import datetime, timedelta

# The first look comes within a minute; the running total stands beside each step.
LOOKS_AFTER = (
    timedelta(seconds=30),  # 30 s
    timedelta(seconds=30),  # 1 min
    timedelta(minutes=1),  # 2 min
    timedelta(minutes=3),  # 5 min
    timedelta(minutes=10),  # 15 min
    timedelta(minutes=45),  # 1 h
    timedelta(hours=5),  # 6 h
    timedelta(hours=18),  # 1 day
)
# From then on once a day, until the provider gives an answer that settles it.
LOOKS_AFTERWARDS = timedelta(days=1)


def next_look(*, now: datetime, looks: int) -> datetime:
    """When to look again after `looks` looks were taken."""
    return now + (LOOKS_AFTER[looks] if looks < len(LOOKS_AFTER) else LOOKS_AFTERWARDS)
