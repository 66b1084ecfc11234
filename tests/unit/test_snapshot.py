"""The snapshot manifest: what a run reads, fixed before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ArtifactError, InputError, ParamsError
from pipelines.ingestion.canonical.snapshot import Snapshot, take
from pipelines.params import DataParams
from pipelines.stages import snapshot as stage
from pipelines.storage import write_json


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("catalog/a.csv", "events/dt=2024-01-02/b.csv", "events/dt=2024-01-01/a.jsonl"):
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "shop"


def manifest(path: str = "shop", adapter: str = "shop", home: Path = Path(), **data: object) -> dict[str, object]:
    return take(DataParams(adapter=adapter, path=path, **data), home=home).as_json()


def test_files_come_in_order_of_their_paths_with_hash_and_size(shop: Path) -> None:
    files = manifest()["files"]
    assert [(f["table"], f["path"]) for f in files] == [
        ("catalog", "catalog/a.csv"),
        ("events", "events/dt=2024-01-01/a.jsonl"),
        ("events", "events/dt=2024-01-02/b.csv"),
    ]
    assert files[0]["bytes"] == len("content of catalog/a.csv")
    assert len(files[0]["sha256"]) == 64


def test_equal_data_in_another_place_give_equal_bytes(
    tmp_path: Path, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "one.json", manifest())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shop.rename(elsewhere / "shop")
    monkeypatch.chdir(elsewhere)
    write_json(tmp_path / "two.json", manifest())
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "one.json").read_text()


def test_a_changed_byte_changes_the_manifest(shop: Path) -> None:
    before = manifest()
    (shop / "catalog" / "a.csv").write_text("Content of catalog/a.csv")
    assert manifest() != before


def test_as_of_is_recorded_in_utc_and_null_when_not_given(shop: Path) -> None:
    assert manifest()["as_of"] is None
    assert manifest(as_of="2024-01-02T03:00:00+03:00")["as_of"] == "2024-01-02T00:00:00+00:00"


def test_feedback_partitions_below_home_are_listed(tmp_path: Path, shop: Path) -> None:
    partition = tmp_path / "home" / "var" / "feedback" / "dt=2024-02-01" / "part.parquet"
    partition.parent.mkdir(parents=True)
    partition.write_bytes(b"x")
    (feedback,) = manifest(home=tmp_path / "home")["feedback"]
    assert (feedback["table"], feedback["path"]) == ("events", "var/feedback/dt=2024-02-01/part.parquet")


def test_hidden_files_and_notes_are_passed_over_and_other_files_are_named(shop: Path) -> None:
    for name in ("README.md", ".DS_Store", "events/_SUCCESS", "events/extra.csv.gz"):
        (shop / name).write_text("")
    assert manifest()["ignored"] == ["events/extra.csv.gz"]


def test_a_missing_folder_is_named_with_the_next_move(shop: Path) -> None:
    with pytest.raises(InputError, match=r"'nowhere' is not a folder; found: nothing there.*next: correct data.path"):
        manifest(path="nowhere")


def test_a_file_in_the_place_of_the_folder_is_refused(shop: Path) -> None:
    with pytest.raises(InputError, match="found: a file"):
        manifest(path="shop/catalog/a.csv")


def test_a_folder_without_files_is_refused(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="'empty' has no files for catalog; found: no file that can be read"):
        manifest(path="empty")


def test_a_shop_without_a_catalogue_is_refused(shop: Path) -> None:
    (shop / "catalog" / "a.csv").unlink()
    with pytest.raises(InputError, match=r"no files for catalog; found: files for events; wanted: folders catalog/"):
        manifest()


def test_an_unknown_adapter_lists_those_that_exist(shop: Path) -> None:
    with pytest.raises(ParamsError, match=r"found: 'magento'; wanted: one of .*online_retail.*shop"):
        manifest(adapter="magento")


def test_a_manifest_can_be_read_back_and_a_damaged_one_is_refused(shop: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", manifest())
    assert Snapshot.read(tmp_path / "m.json").as_json() == manifest()
    write_json(tmp_path / "m.json", {"files": []})
    with pytest.raises(ArtifactError, match=r"m\.json is not a snapshot manifest"):
        Snapshot.read(tmp_path / "m.json")


def test_the_stage_writes_the_manifest(shop: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("seed: 1\nmodels: {}\ndata: {adapter: shop, path: shop}\n")
    stage.main(["--params", str(params), "--artifacts", str(tmp_path / "artifacts")])
    assert Snapshot.read(tmp_path / "artifacts" / "snapshot" / "manifest.json").adapter == "shop"
