"""Parameters that cannot be are named, with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.errors import ParamsError
from pipelines.fusion import fuser
from pipelines.params import load

GOOD = """
seed: 1
data: {adapter: shop, path: shop, as_of: '2020-01-01'}
models: {popularity: {kind: popularity}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_parameters_are_valid(root: Path) -> None:
    assert "two_tower" in load(root / "params.yaml").models


def test_a_quoted_day_is_midnight_utc(tmp_path: Path) -> None:
    assert load(written(tmp_path, GOOD)).data.as_of == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (GOOD.replace("'2020-01-01'", "2020-01-01"), r"data\.as_of.*quotes"),
        (GOOD + "fusion: {methd: auto}\n", r"fusion\.methd"),
        (GOOD + "gate: {margin: -1}\n", r"gate\.margin"),
        (GOOD.replace("adapter: shop, ", ""), r"data\.adapter"),
        (GOOD.replace("path: shop", "path: shop, target: buy"), r"unknown event type 'buy'.*purchase-complete"),
        ("models: [", "is not YAML"),
        ("- 1", "is not a mapping"),
    ],
    ids=["unquoted as_of", "misspelt", "out of range", "missing", "unknown event type", "no YAML", "no mapping"],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, wrong: str, named: str) -> None:
    with pytest.raises(ParamsError, match=named) as caught:
        load(written(tmp_path, wrong))
    assert "next:" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="project's root"):
        load(tmp_path / "params.yaml")


def test_a_misspelt_field_of_a_fuser_is_named_with_those_there_are() -> None:
    with pytest.raises(ParamsError, match=r"fusion\.stacking\.epoch:.*epochs"):
        fuser.config("stacking", {"epoch": 3})
