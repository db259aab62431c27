"""`python -m ledger.events_docs`: writes `docs/events/` from the catalogue; a test says when that is due.

One JSON Schema (2020-12) for each event's data, and a page with all of them.
"""

from pathlib import Path
from typing import Any

import msgspec

from ledger.events import EVENTS, EventKind

FOLDER = Path("docs/events")

_HEAD = """# Events

<!-- Written by `python -m ledger.events_docs` from src/ledger/events.py. -->

What Ledger tells webhook subscribers. Each event is sent as `{"id", "event", "data", "timestamp"}`; the JSON Schemas
here are those of `data`.

* Money is an integer in the currency's minor unit. Times are UTC.
* An event may arrive more than once, always with the same `id`, and events may overtake each other. Ask the API when it
  matters how things stand now.
* New fields may come; ignore those you do not know.
* `subscription.paid` and `subscription.payment_failed` are sent whenever a provider took or could not take money, also
  for an invoice on its own. All that is about a subscription is `null` then.

| event | sent when | data |
|---|---|---|
"""


# A schema's values depend on its keywords, which no type can follow; msgspec hands schemas out like this too.
def data_schema(kind: EventKind) -> dict[str, Any]:
    """The JSON Schema of an event's data, without references."""
    schema = msgspec.json.schema(kind.data)
    described: dict[str, Any] = schema["$defs"][kind.data.__name__]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **described,
        "title": kind.name,
        "description": " ".join(f"{kind.when} {described['description']}".split()),
        "examples": [example_of(described)],
    }


def example_of(schema: dict[str, Any]) -> dict[str, Any]:
    """What such data looks like: the first example of each field."""
    return {name: _example(field) for name, field in schema["properties"].items()}


def _example(field: dict[str, Any]) -> Any:
    if "examples" in field:
        return field["examples"][0]
    if "anyOf" in field:
        return _example(field["anyOf"][0])
    return field["enum"][0] if "enum" in field else None


def documents() -> dict[str, str]:
    """Every file of the folder: its name and what it says."""
    files = {f"{kind.name}.json": _written(data_schema(kind)) for kind in EVENTS.values()}
    return {"README.md": _page(), **files}


def _written(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _page() -> str:
    rows = [f"| `{kind.name}` | {kind.when} | [schema]({kind.name}.json) |\n" for kind in EVENTS.values()]
    examples = []
    for kind in EVENTS.values():
        example = {
            "id": "019b2f6c-1000-7abc-8def-0123456789ab",
            "event": kind.name,
            "data": data_schema(kind)["examples"][0],
            "timestamp": "2026-01-15T09:30:00.000Z",
        }
        examples.append(f"\n## `{kind.name}`\n\n{kind.when}\n\n```json\n{_written(example)}```\n")
    return _HEAD + "".join(rows) + "".join(examples)


def write(folder: Path = FOLDER) -> None:
    """Brings the folder to what the catalogue says; a file of an event that is no more goes."""
    wanted = documents()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.iterdir()) - {folder / name for name in wanted}:
        stale.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
