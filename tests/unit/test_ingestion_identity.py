"""Whatever the lines and files, quantities add up within a file and later copies change nothing."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.ingestion.canonical.ingest import ingest
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams

Line = tuple[str, str, int, int]
"""event_id, item_id, quantity, price in whole units"""

LINES = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 4)),
    min_size=1,
    max_size=8,
)


def run(files: list[list[Line]]) -> tuple[dict[tuple[str, str], tuple[float, float]], int, int, int]:
    """Kept (quantity, spend) per identity; numbers of duplicates, conflicts, merged lines."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "events").mkdir()
        (root / "catalog").mkdir()
        (root / "catalog" / "c.csv").write_text("item_id,title\na,A\nb,B\n")
        for number, lines in enumerate(files):
            rows = [
                {"event_id": e, "item_id": i, "quantity": q, "price": p, "user_id": "u"}
                | {"event_type": "purchase-complete", "event_time": "2024-01-01"}
                for e, i, q, p in lines
            ]
            (root / "events" / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        params = DataParams(adapter="shop", path=str(root))
        report = ingest(take(params, home=root), params, home=root, artifacts=root / "out").tables["events"]
        kept = pq.read_table(root / "out" / "canonical" / "events.parquet").to_pylist()
    found = {(r["event_id"], r["item_id"]): (r["quantity"], r["quantity"] * r["price"]) for r in kept}
    assert len(found) == len(kept)
    return found, report.duplicates, report.bad.get("conflicting_copy", 0), report.merged_lines


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.lists(LINES, min_size=1, max_size=3))
def test_quantities_and_money_add_up_within_a_file_and_the_first_file_wins(files: list[list[Line]]) -> None:
    first: dict[tuple[str, str], tuple[float, float]] = {}
    later = 0
    for lines in files:
        sums: dict[tuple[str, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for event_id, item_id, quantity, price in lines:
            before = sums[event_id, item_id]
            sums[event_id, item_id] = (before[0] + quantity, before[1] + quantity * price)
        later += sum(key in first for key in sums)
        first = {**sums, **first}
    kept, duplicates, conflicts, merged = run(files)
    assert set(kept) == set(first)
    for key, (quantity, spend) in first.items():
        assert kept[key] == pytest.approx((quantity, spend))
    assert duplicates + conflicts == later
    assert merged == sum(map(len, files)) - len(first) - later


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=LINES, order=st.randoms(use_true_random=False))
def test_a_copy_of_a_file_with_its_lines_in_another_order_is_all_duplicates(lines: list[Line], order: object) -> None:
    shuffled = list(lines)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    once = run([lines])
    twice = run([lines, shuffled])
    assert twice[0] == once[0]
    assert (twice[1], twice[2]) == (len(once[0]), 0)
