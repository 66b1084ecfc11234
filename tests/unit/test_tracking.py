"""The registry on a real MLflow with SQLite: one world, made once, since its schema costs seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.adapters.tracking import Registry, RunRecord, flat
from pipelines.errors import PromotionRefused


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def registry(home: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Registry.open(home)


def registered(registry: Registry, folder: Path, name: str, **tags: str) -> int:
    bundle = folder / name
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    run = registry.record(RunRecord(name, params={"models.ease.l2": 200.0}, metrics={"recommend/fused/ndcg@10": 0.4}))
    return registry.register(bundle, run, bundle_id=name, tags={"verdict": "promote", **tags})


@pytest.mark.slow
def test_a_bundle_is_one_run_and_one_version_however_often_it_is_registered(
    registry: Registry, home: Path, tmp_path: Path
) -> None:
    number = registered(registry, tmp_path, "one")
    run = registry.record(RunRecord("one", tags={"verdict": "promote"}))
    assert registry.register(tmp_path / "one", run, bundle_id="one", tags={"forced": "true"}) == number
    found = Registry.open(home).version(number)
    assert (found.bundle_id, found.run_id) == ("one", run)
    assert found.tags["verdict"] == "promote"
    assert found.tags["forced"] == "true"


@pytest.mark.slow
def test_aliases_move_and_go_and_are_read_back(registry: Registry, tmp_path: Path) -> None:
    first, second = (registered(registry, tmp_path, name) for name in ("first", "second"))
    registry.point({"champion": first, "challenger": second})
    registry.point({"champion": second, "previous_champion": first, "challenger": None})
    assert registry.aliases() == {"champion": second, "previous_champion": first}
    assert registry.version(second).aliases == ("champion",)


@pytest.mark.slow
def test_an_unknown_version_is_refused_with_those_there_are(registry: Registry) -> None:
    with pytest.raises(PromotionRefused, match="there is no version 99"):
        registry.version(99)


@pytest.mark.slow
def test_the_registered_folder_is_one_that_mlflow_can_load(registry: Registry, home: Path, tmp_path: Path) -> None:
    number = registered(registry, tmp_path, "loadable")
    source = next(path for path in (home / "var" / "mlartifacts").rglob("MLmodel") if number)
    assert "loader_module: pipelines.adapters.tracking" in source.read_text()
    assert (source.parent / "bundle" / "manifest.json").exists()


def test_parameters_are_flattened_by_dots() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": None}) == {"a.b": 1, "a.c": {}, "d": None}
