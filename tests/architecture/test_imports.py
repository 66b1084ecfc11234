"""Who may import what, and that importing does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from closure import SOURCE, file_of, modules

STANDARD = sys.stdlib_module_names
BUNDLE_NEEDS = {"numpy", "pyarrow", "pydantic", "pydantic_core", "yaml", "bm25s", "Stemmer", "rapidfuzz"}
"""What the serving lock has for scoring; everything else in a bundle's closure is imported inside ``fit``."""

DOORS = {
    "mlflow": {"pipelines.adapters.tracking"},
    "great_expectations": {"expectations.runner"},
    "bentoml": {"serving.service"},
    "keras_hub": {"pipelines.adapters.encoder", "pipelines.adapters.lora"},
    "airflow": set(),
    "dvc": set(),
}
"""Libraries with one way in: only these modules import them."""

QUIET = tuple(m for m in modules("pipelines", "expectations") if not m.startswith("pipelines.learners"))
"""Modules that leave the process as it was; learners import TensorFlow, which settles into its process."""


def test_layers_hold() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint_imports, "--no-cache"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_only_by_the_module_that_adapts_it(library: str) -> None:
    product = modules("pipelines", "serving", "expectations")
    users = {name for name in product if any(i.split(".")[0] == library for i in SOURCE.imported(file_of(name)))}  # type: ignore[arg-type]
    assert users <= DOORS[library]


def test_tensorflow_is_imported_only_by_learners_and_the_encoder() -> None:
    libraries = {"tensorflow", "tensorflow_recommenders", "tf_keras", "keras"}
    users = {n for n in modules() if libraries & {i.split(".")[0] for i in SOURCE.imported(file_of(n))}}  # type: ignore[arg-type]
    assert {u for u in users if not u.startswith(("pipelines.learners.", "benchmarks."))} <= {
        "pipelines.adapters.encoder",
        "pipelines.adapters.lora",
    }


def test_dags_import_only_airflow_yaml_and_the_standard_library(root: Path) -> None:
    for path in (root / "dags").glob("**/*.py"):
        others = {name.split(".")[0] for name in SOURCE.imported(path, strings=False)} - STANDARD - {"airflow", "yaml"}
        siblings = {p.stem for p in path.parent.glob("*.py")}
        assert not others - siblings, path.name


def bundle_modules() -> list[str]:
    """What a service loads to score: the bundle, every kind of model, every fuser."""
    named = ["pipelines.bundle", "pipelines.model_registry", "pipelines.features.state", "pipelines.features.lookup"]
    return [*named, *modules("pipelines.models"), *modules("pipelines.fusion")]


def test_a_bundle_scores_with_few_libraries_only() -> None:
    """Everything is really imported, with all other libraries forbidden."""
    script = f"""
import importlib, importlib.abc, sys
ours = {{"pipelines"}} | set({sorted(BUNDLE_NEEDS)!r}) | sys.stdlib_module_names
ours |= {{"annotated_types", "typing_extensions", "typing_inspection", "_yaml"}}
class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ours and not name.split(".")[0].startswith("_"):
            importer = sys._getframe(1)
            while importer and "importlib" in importer.f_code.co_filename: importer = importer.f_back
            if importer and "/pipelines/" in importer.f_code.co_filename:
                raise RuntimeError(f"{{importer.f_code.co_filename}} imports {{name}}")
            raise ImportError(name)
sys.meta_path.insert(0, Forbid())
for module in {bundle_modules()!r}: importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_a_bundle_needs_is_in_the_serving_lock(root: Path) -> None:
    lock = (root / "requirements" / "serving.txt").read_text(encoding="utf-8")
    locked = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    assert {"numpy", "pyarrow", "pydantic", "pyyaml"} <= locked
    assert not {"tensorflow", "pandas", "duckdb", "mlflow", "great-expectations", "dvc"} & locked


def test_the_library_never_reaches_the_service_or_the_dags() -> None:
    for module in modules("pipelines"):
        names = {SOURCE.name_of(path) for path in SOURCE.closure([module], lazy=False)}
        assert not {name for name in names if name.startswith(("serving", "benchmarks"))}


def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    """No file or folder appears, nothing is printed, and environment, threads, log handlers and seeds stay."""
    script = f"""
import importlib, json, logging, os, random, sys, threading
before = dict(os.environ), threading.active_count(), list(logging.getLogger().handlers), random.getstate()
for module in {[m for m in modules() if not m.endswith("__main__")]!r}:
    importlib.import_module(module)
    now = dict(os.environ), threading.active_count(), list(logging.getLogger().handlers), random.getstate()
    for what, old, new in zip(("environment", "threads", "log handlers", "seed"), before, now):
        if old != new and module in {QUIET!r}: sys.exit(f"importing {{module}} changes the {{what}}")
    before = now
"""
    (tmp_path / "home").mkdir()
    keep = {name: os.environ[name] for name in ("PATH",)}
    paths = {
        "HOME": str(tmp_path / "home"),
        "FUSELINE_HOME": str(tmp_path),
        "BENTOML_HOME": str(tmp_path / "home" / "b"),
    }
    root = str(Path(__file__).resolve().parents[2])
    environment = {**keep, **paths, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stdout
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert not [path for path in written if not path.startswith("home/")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home"]


def test_light_modules_stay_light() -> None:
    """The command line, the parameters and the service's start answer at once: no engine is imported with them."""
    heavy = {"tensorflow", "pandas", "mlflow", "great_expectations", "ibis", "duckdb", "scipy", "matplotlib"}
    light = [m for m in ("pipelines.cli", "pipelines.params", "serving.start", "pipelines.champion") if file_of(m)]
    imports = "; ".join(f"import {module}" for module in light)
    script = f"import json, sys; {imports}; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(json.loads(done.stdout))
