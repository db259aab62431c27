"""Reads what the Dashboard would show out of an answer."""

from tests.installation import Answer


def columns(answer: Answer) -> list[tuple[str, str]]:
    """A table's columns as (key, label), in their order."""
    return [(column["key"], column["label"]) for column in answer.body["columns"]]


def cells(answer: Answer, key: str) -> list[object]:
    """One column of a table, from the first row to the last."""
    return [row[key] for row in answer.body["rows"]]


def labels(answer: Answer) -> list[tuple[str, str]]:
    """A detail's fields as (key, label), in their order."""
    return [(field["key"], field["label"]) for field in answer.body["fields"]]


def types(answer: Answer) -> dict[str, str]:
    """The types of a detail's fields; those without one are missing."""
    return {field["key"]: field["type"] for field in answer.body["fields"] if "type" in field}


def buttons(answer: Answer) -> dict[str, tuple[str, str]]:
    """An action bar's buttons: label → (method, endpoint)."""
    return {action["label"]: (action["method"], action["endpoint"]) for action in answer.body["actions"]}
