"""When the reconciler looks at something whose outcome is not known: soon, then with growing distance."""

from datetime import datetime, timedelta

# The first look comes within a minute; the running total stands beside each step.
_FIRST_LOOKS_AFTER = (
    timedelta(seconds=30),  # 30 s
    timedelta(seconds=30),  # 1 min
    timedelta(minutes=1),  # 2 min
    timedelta(minutes=1),  # 3 min
    timedelta(minutes=2),  # 5 min
)
# Then every five minutes for an hour, every half hour for a day, and once a day until there is an answer.
_EVERY = (
    (12, timedelta(minutes=5)),
    (46, timedelta(minutes=30)),
)
_AFTERWARDS = timedelta(days=1)


def next_look(*, now: datetime, looks: int) -> datetime:
    """When to look again after `looks` looks were taken."""
    if looks < len(_FIRST_LOOKS_AFTER):
        return now + _FIRST_LOOKS_AFTER[looks]
    looks -= len(_FIRST_LOOKS_AFTER)
    for times, distance in _EVERY:
        if looks < times:
            return now + distance
        looks -= times
    return now + _AFTERWARDS
