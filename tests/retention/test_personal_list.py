"""The list of what can hold personal data has every column there is, and the document tells the same."""

from pathlib import Path

from ledger.retention.personal import NOT_PERSONAL, PERSONAL
from tests.retention.columns import columns_pointing_at_persons, columns_that_hold_anything

DOCUMENT = Path(__file__).parents[2] / "docs" / "privacy.md"


def listed() -> list[str]:
    return [*PERSONAL, *(f"{table}.{column}" for table, columns in NOT_PERSONAL.items() for column in columns)]


async def test_every_column_that_can_hold_personal_data_is_in_one_of_the_lists(database_url: str) -> None:
    found = {each.name for each in await columns_that_hold_anything(database_url) if each.kind != "uuid"}
    found |= set(await columns_pointing_at_persons(database_url))

    names = listed()
    assert len(names) == len(set(names)), "a column stands in one list only"
    assert found - set(names) == set(), "say in ledger.retention.personal what becomes of these columns"
    assert set(names) - found == set(), "these columns are not there any more"


async def test_whatever_points_at_a_person_can_lose_it(database_url: str) -> None:
    for name in await columns_pointing_at_persons(database_url):
        assert name in PERSONAL


def test_the_document_names_every_column_that_can_hold_personal_data() -> None:
    text = DOCUMENT.read_text()

    missing = [name for name in PERSONAL if f"`{name}`" not in text]
    assert missing == []
