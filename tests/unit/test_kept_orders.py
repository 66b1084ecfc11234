"""Orders of searches are kept for whoever asks the same, here or in another process, and are the same to the bit."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.made_bundle import make
from pipelines import kept_orders
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.kept_orders import KeptOrders, Order, Slots
from pipelines.ranking import Filter, Ranking, RankRequest

ORDER = Order(np.array([3, 1, 2], np.int32), np.array([0.5, 0.25, -1.0], np.float32), None, "coffee mug")


def same(one: Order, other: Order) -> bool:
    return (
        one.codes.tolist() == other.codes.tolist()
        and one.scores.tobytes() == other.scores.tobytes()
        and one[2:] == other[2:]
    )


def search(bundle: Bundle, query: str, **options: object) -> Ranking:
    asked = RankRequest(surface=Surface.SEARCH, query=query, n=20, **options)  # type: ignore[arg-type]
    return bundle.rank(asked, bundle.history())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shop") / "bundle")


@given(
    codes=st.lists(st.integers(0, 2**31 - 1), max_size=50),
    fallback=st.none() | st.text(),
    rewritten=st.none() | st.text(),
)
def test_an_order_comes_back_as_it_went(codes: list[int], fallback: str | None, rewritten: str | None) -> None:
    scores = np.linspace(-1e30, 1e-30, len(codes)).astype(np.float32)
    order = Order(np.array(codes, np.int32), scores, fallback, rewritten)
    assert same(Order.from_bytes(order.to_bytes()), order)


def test_what_one_process_found_another_one_finds_kept(folder: Path, tmp_path: Path) -> None:
    one, other = (Bundle.load(folder, orders=tmp_path) for _ in range(2))
    alone = search(Bundle.load(folder), "thing i0007", facets=("brand",))
    assert search(one, "thing i0007", facets=("brand",)) == alone
    other._searched = lambda *_: pytest.fail("the members were asked")  # type: ignore[method-assign]
    assert search(other, "thing i0007", facets=("brand",)) == alone


def test_orders_of_another_query_filter_or_bundle_are_not_taken(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Filter]] = []

    def ask(bundle: str, query: str, filter_: Filter) -> None:
        kept = KeptOrders(bundle=bundle, folder=tmp_path)
        kept.get(query, filter_, lambda: asked.append((bundle, query, filter_)) or ORDER)  # type: ignore[func-returns-value]

    different = [
        ("a", "mug", Filter()),
        ("b", "mug", Filter()),
        ("a", "cup", Filter()),
        ("a", "mug", Filter(brand="x")),
    ]
    for _ in range(2):
        for one in different:
            ask(*one)
    assert asked == different


def test_questions_that_come_once_do_not_drive_out_those_that_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_orders, "IN_MEMORY", 2)
    monkeypatch.setattr(kept_orders, "SLOTS", 1)  # so that the file forgets at once
    kept, made = KeptOrders(folder=tmp_path), []

    def ask(query: str) -> None:
        assert same(kept.get(query, Filter(), lambda: made.append(query) or ORDER), ORDER)  # type: ignore[func-returns-value]

    for query in ("mug", "cup", "mug", *(f"once {n}" for n in range(50)), "mug"):
        ask(query)
    assert made.count("mug") == 2
    assert len(made) == 53


def test_two_keys_of_one_slot_take_its_place_in_turn(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "orders", 1)
    slots.write(b"one", b"11")
    slots.write(b"two", b"2")
    assert (slots.read(b"one"), slots.read(b"two")) == (None, b"2")


def test_a_value_that_is_too_long_for_a_slot_leaves_what_is_there(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "orders", 2)
    slots.write(b"key", b"1")
    slots.write(b"key", bytes(kept_orders.SLOT))
    assert slots.read(b"key") == b"1"


def test_a_value_that_was_not_written_whole_is_not_taken(tmp_path: Path) -> None:
    file, value = tmp_path / "orders", bytes(range(256)) * 80
    slots = Slots(file, 1)
    slots.write(b"key", value)
    whole = file.read_bytes()
    for end in range(0, len(whole), 500):
        file.write_bytes(whole[:end])
        assert slots.read(b"key") is None
        file.write_bytes(whole[:end] + bytes(len(whole) - end))
        assert slots.read(b"key") is None
    file.write_bytes(whole)
    assert slots.read(b"key") == value


def test_who_reads_while_others_write_gets_a_whole_value(tmp_path: Path) -> None:
    slots, values = Slots(tmp_path / "orders", 1), {bytes([n]) * 20_000 for n in range(4)}
    writers = [
        threading.Thread(target=lambda value=value: [slots.write(b"key", value) for _ in range(50)]) for value in values
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert slots.read(b"key") in {None, *values}
    for writer in writers:
        writer.join()
    slots.write(b"key", b"last")
    assert slots.read(b"key") == b"last"


def test_a_folder_that_is_gone_costs_nothing_but_the_sharing(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "orders"
    shared.mkdir()
    bundle = Bundle.load(folder, orders=shared)
    shutil.rmtree(shared)
    assert search(bundle, "thing") == search(Bundle.load(folder), "thing")


def test_a_bundle_without_a_member_shares_nothing(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder, orders=tmp_path)
    search(bundle, "thing")
    kept = (tmp_path / kept_orders.FILE).read_bytes()
    member = next(iter(bundle.on(Surface.SEARCH)))
    assert search(bundle.without(member), "thing") == search(Bundle.load(folder).without(member), "thing")
    search(bundle.without(member), "garden")
    assert (tmp_path / kept_orders.FILE).read_bytes() == kept


def test_a_machine_keeps_no_more_than_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_orders, "SLOTS", 5)
    kept = KeptOrders(bundle="a", folder=tmp_path)
    for number in range(100):
        kept.get(f"query {number}", Filter(), lambda: ORDER)
    assert (tmp_path / kept_orders.FILE).stat().st_size <= 5 * kept_orders.SLOT
