"""Ids: their order, and what is not one."""

import threading
import time
from itertools import pairwise
from uuid import UUID

import pytest

from ledger.ids import Ids, SequentialIds, TimeOrderedIds, is_id


def test_ids_made_later_sort_later_even_within_a_millisecond() -> None:
    ids = TimeOrderedIds()
    made = [ids.new() for _ in range(20_000)]
    # The first 13 characters are the millisecond: without repeats this test would show nothing.
    assert len({text[:13] for text in made}) < len(made) / 2
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_sort_in_order_of_making_across_threads() -> None:
    ids, made, lock = TimeOrderedIds(), list[str](), threading.Lock()

    def make_some() -> None:
        for _ in range(2_000):
            with lock:
                made.append(ids.new())

    threads = [threading.Thread(target=make_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(made) == 8_000
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_of_several_generators_in_one_process_share_the_order() -> None:
    one, other = TimeOrderedIds(), TimeOrderedIds()
    made = [ids.new() for _ in range(1_000) for ids in (one, other)]
    assert made == sorted(set(made))


def test_an_id_carries_the_time_it_was_made() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = UUID(TimeOrderedIds().new())
    after_ms = time.time_ns() // 1_000_000
    assert made.version == 7
    # Under load the generator may run ahead by a millisecond: it never goes back behind an id it made.
    assert before_ms <= (made.int >> 80) <= after_ms + 1


def test_sequential_ids_are_the_same_in_every_run() -> None:
    ids: Ids = SequentialIds()
    assert [ids.new(), ids.new()] == [
        "00000000-0000-7000-8000-000000000001",
        "00000000-0000-7000-8000-000000000002",
    ]


@pytest.mark.parametrize("ids", [TimeOrderedIds(), SequentialIds()])
def test_every_made_id_is_canonical_text(ids: Ids) -> None:
    text = ids.new()
    assert is_id(text)
    assert str(UUID(text)) == text


@pytest.mark.parametrize("text", ["01a202cb-f3dd-71e1-8c64-08286d8ad76b", "01A202CB-F3DD-71E1-8C64-08286D8AD76B"])
def test_canonical_text_in_either_case_is_an_id(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "x",
        "' or 1=1 --",
        "%2e%2e%2f",
        "01a202cbf3dd71e18c6408286d8ad76b",
        "{01a202cb-f3dd-71e1-8c64-08286d8ad76b}",
        "urn:uuid:01a202cb-f3dd-71e1-8c64-08286d8ad76b",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76b\n",
        " 01a202cb-f3dd-71e1-8c64-08286d8ad76b",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76bb",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76g",
        "01a202cb-f3dd-71e1-8c6408286d8ad76b-",
        "01a202cb_f3dd_71e1_8c64_08286d8ad76b",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76\u0661",
        "01a202cb-f3dd-71e1-8c64-08286d8ad76\x00",
        "-" * 36,
        "a" * 1_000_000,
    ],
)
def test_everything_else_is_no_id(text: str) -> None:
    assert not is_id(text)
