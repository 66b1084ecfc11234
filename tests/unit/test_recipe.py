"""What makes two recipes the same, and what does not."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines import recipe
from pipelines.errors import ArtifactError
from pipelines.params import AllParams, parse
from pipelines.source_code import SourceCode

VALUES: dict[str, Any] = {
    "seed": 7,
    "data": {"adapter": "shop", "path": "data/shop"},
    "models": {"popularity": {"kind": "popularity"}, "ease": {"kind": "ease", "l2": 200.0}},
}


def params(**changes: Any) -> AllParams:
    return parse(VALUES | changes)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A library of four modules: a stage that imports a kind's base, two kinds, and the gate."""
    files = {
        "pipelines/__init__.py": "",
        "pipelines/base.py": "X = 1\n",
        "pipelines/stages/__init__.py": "",
        "pipelines/stages/train.py": "def main():\n    from pipelines import base\n",
        "pipelines/models/__init__.py": "",
        "pipelines/models/ease.py": "from pipelines.base import X\n",
        "pipelines/models/popularity.py": "",
        "pipelines/models/unused.py": "",
        "pipelines/gating.py": "",
        "params.yaml": "seed: 7\n",
        "requirements/serving.txt": "numpy==2.4.6\n",
    }
    for name, text in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "source"


def test_where_the_data_lie_and_how_they_are_judged_is_no_part_of_a_recipe(source: Path) -> None:
    one = recipe.recipe_of(params(), source)
    moved = VALUES["data"] | {"path": "elsewhere", "as_of": "2011-01-01"}
    other = recipe.recipe_of(params(data=moved, gate={"margin": 0.5}, evaluation={"max_users": 9}), source)
    assert one == other


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"models": {"popularity": {"kind": "popularity"}}},
        {"models": VALUES["models"] | {"ease": {"kind": "ease", "l2": 300.0}}},
        {"fusion": {"method": "weighted"}},
        {"split": {"windows": 2}},
        {"text": {"max_tokens": 64, "encoder": None}},
    ],
)
def test_every_parameter_that_shapes_the_bundle_changes_the_recipe(source: Path, changes: dict[str, Any]) -> None:
    assert recipe.recipe_of(params(), source)["id"] != recipe.recipe_of(params(**changes), source)["id"]


@pytest.mark.parametrize("name", ["base.py", "stages/train.py", "models/ease.py", "models/popularity.py"])
def test_code_that_can_run_changes_the_recipe(source: Path, name: str) -> None:
    before = recipe.recipe_of(params(), source)
    (source / "pipelines" / name).write_text("Y = 2\n")
    after = recipe.recipe_of(params(), source)
    assert before["code"] != after["code"]
    assert before["id"] != after["id"]
    assert before["params"] == after["params"]


@pytest.mark.parametrize("name", ["gating.py", "models/unused.py"])
def test_code_that_cannot_run_does_not(source: Path, name: str) -> None:
    before = recipe.recipe_of(params(), source)
    (source / "pipelines" / name).write_text("Y = 2\n")
    assert recipe.recipe_of(params(), source) == before


def test_an_import_inside_a_function_is_followed(source: Path) -> None:
    found = SourceCode(source).closure(["pipelines.stages.train"], packages=False)
    assert source / "pipelines" / "base.py" in found


def test_without_a_repository_there_is_no_revision_and_no_failure(source: Path) -> None:
    assert recipe.recipe_of(params(), source)["revision"] is None


def test_a_folder_without_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no source.*pipelines/"):
        recipe.recipe_of(params(), tmp_path)


def test_packing_twice_gives_the_same_bytes_whatever_the_times_of_the_files(source: Path, tmp_path: Path) -> None:
    one = recipe.pack_source(source, tmp_path / "one.tar.gz").read_bytes()
    (source / "pipelines" / "base.py").touch()
    assert recipe.pack_source(source, tmp_path / "two.tar.gz").read_bytes() == one


def test_an_unpacked_source_is_the_same_recipe(source: Path, tmp_path: Path) -> None:
    packed = recipe.pack_source(source, tmp_path / "source.tar.gz")
    (tmp_path / "again").mkdir()
    recipe.unpack_source(packed, tmp_path / "again")
    assert recipe.recipe_of(params(), tmp_path / "again") == recipe.recipe_of(params(), source)
    with tarfile.open(packed) as tar:
        assert tar.getnames() == sorted(tar.getnames())


def test_the_parameters_that_were_used_are_packed_under_the_usual_name(source: Path, tmp_path: Path) -> None:
    used = tmp_path / "other.yaml"
    used.write_text("seed: 99\n")
    packed = recipe.pack_source(source, tmp_path / "source.tar.gz", params_file=used)
    (tmp_path / "again").mkdir()
    recipe.unpack_source(packed, tmp_path / "again")
    assert (tmp_path / "again" / "params.yaml").read_text() == "seed: 99\n"


def test_a_damaged_source_is_named(tmp_path: Path) -> None:
    (tmp_path / "source.tar.gz").write_bytes(b"not a tar")
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        recipe.unpack_source(tmp_path / "source.tar.gz", tmp_path)


@pytest.mark.parametrize("without_filters", [False, True], ids=["this Python", "Python 3.11.2"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../beside", tarfile.REGTYPE),
        ("/beside", tarfile.REGTYPE),
        ("inside", tarfile.SYMTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_nothing_of_a_source_lands_outside_of_its_folder_or_is_anything_but_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, kind: bytes, without_filters: bool
) -> None:
    if without_filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    into = tmp_path / "into"
    into.mkdir()
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("before"))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "../beside"
        tar.addfile(entry)
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        recipe.unpack_source(tmp_path / "source.tar.gz", into)
    assert not list(into.iterdir())
    assert not (tmp_path / "beside").exists()


def test_a_source_is_unpacked_by_a_python_whose_archives_have_no_filters(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    packed = recipe.pack_source(source, tmp_path / "source.tar.gz")
    (tmp_path / "again").mkdir()
    recipe.unpack_source(packed, tmp_path / "again")
    assert recipe.recipe_of(params(), tmp_path / "again") == recipe.recipe_of(params(), source)
