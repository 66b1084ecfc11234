from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.made_bundle import make
from pipelines.errors import ArtifactError
from pipelines.storage import write_json
from serving import bundle_choice, start

ROOT = Path(__file__).parents[2]
POINTER = {"version": 3, "bundle": "b", "judged": None, "bundle_id": "x", "judged_id": None, "recipe": "r"}


def test_a_named_bundle_goes_before_the_champion(tmp_path: Path) -> None:
    write_json(tmp_path / "var/champion/current.json", {**POINTER, "bundle": str(tmp_path / "b")})
    named = {"FUSELINE_HOME": str(tmp_path), "FUSELINE_BUNDLE": str(tmp_path / "named")}
    assert bundle_choice.choose(named).folder == tmp_path / "named"
    champion = bundle_choice.choose({"FUSELINE_HOME": str(tmp_path)})
    assert (champion.folder, champion.version) == (tmp_path / "b", "3")


def test_the_bundle_inside_the_bento_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "packed/about.json", {"version": "5", "bundle_id": "x"})
    monkeypatch.setattr(bundle_choice, "PACKED", tmp_path / "packed")
    choice = bundle_choice.choose({"FUSELINE_HOME": str(tmp_path)})
    assert (choice.folder, choice.version) == (tmp_path / "packed/bundle", "5")


def test_with_no_bundle_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"make demo.*fuseline promote"):
        bundle_choice.choose({"FUSELINE_HOME": str(tmp_path)})


def test_a_damaged_pointer_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "var/champion/current.json", {"version": 3})
    with pytest.raises(ArtifactError, match=r"current\.json"):
        bundle_choice.choose({"FUSELINE_HOME": str(tmp_path)})


def test_a_damaged_bundle_stops_the_start_and_is_named(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    environ = {"FUSELINE_HOME": str(tmp_path), "FUSELINE_BUNDLE": str(bundle)}
    start.check(environ, host="127.0.0.1")
    with (bundle / "members/popularity/scores.npy").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    with pytest.raises(ArtifactError, match=r"scores\.npy is damaged"):
        start.check(environ, host="127.0.0.1")


def test_a_folder_without_bundle_stops_the_start_and_is_named(tmp_path: Path) -> None:
    environ = {"FUSELINE_HOME": str(tmp_path), "FUSELINE_BUNDLE": str(tmp_path / "nothing")}
    with pytest.raises(ArtifactError, match="nothing holds no bundle"):
        start.check(environ, host=None)


def test_it_does_not_listen_elsewhere_without_keys(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="FUSELINE_API_KEYS_FILE"):
        start.check({"FUSELINE_HOME": str(tmp_path)}, host="0.0.0.0")  # noqa: S104


@pytest.mark.parametrize(
    ("arguments", "environ", "host"),
    [
        (["bentoml", "serve", "--host", "0.0.0.0"], {}, "0.0.0.0"),  # noqa: S104
        (["bentoml", "serve", "--host=::1"], {}, "::1"),
        (["bentoml", "serve"], {"BENTOML_HOST": "10.0.0.1"}, "10.0.0.1"),
        (["bentoml", "serve"], {}, None),
    ],
)
def test_the_host_asked_for_is_found(arguments: list[str], environ: dict[str, str], host: str | None) -> None:
    assert start.asked_host(arguments, environ) == host


def test_a_worker_imports_nothing_heavy() -> None:
    heavy = ("tensorflow", "pandas", "duckdb", "ibis", "mlflow", "great_expectations", "scipy", "sklearn", "matplotlib")
    program = (
        "import sys, serving.service, serving.application, serving.runtime, pipelines.model_registry as r\n"
        "[r.kind(name) for name in r.kind_names()]\n"
        "import pipelines.fusion.fuser as f\n"
        "[f.method(name) for name in f.METHODS]\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_worker_that_has_answered_holds_neither_pandas_nor_scipy(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    program = (
        "import sys\n"
        "from serving.service import Fuseline\n"
        "worker = Fuseline.inner()\n"
        "held = [name in sys.modules for name in ('pyarrow', 'bm25s', 'pandas', 'scipy')]\n"
        "print(worker.runtime.served is not None, *held)\n"
        "worker.runtime.close()\n"
    )
    home = {"FUSELINE_BUNDLE": str(bundle), "FUSELINE_HOME": str(tmp_path)}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **home}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True True True False False", done.stderr


def test_workers_share_a_folder_for_orders_unless_one_is_named(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    assert bundle_choice.shared_orders(environ) is None
    made = start.share(environ)
    assert made is not None
    folder = bundle_choice.shared_orders(environ)
    assert folder is not None
    assert folder.is_dir()
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    made.close()
    assert not folder.parent.exists()
    named = {"FUSELINE_ORDERS": str(tmp_path)}
    with start.share(named) or pytest.fail("there is no folder"):
        assert bundle_choice.shared_orders(named) == tmp_path


def _place_of_orders(environ: dict[str, str]) -> Path:
    """Where the folder of orders was made; it is gone afterwards."""
    made = start.share(environ)
    assert made is not None
    folder = bundle_choice.shared_orders(environ)
    made.close()
    assert folder is not None
    return folder.parent.parent


def test_orders_lie_in_memory_where_there_is_room_and_no_other_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "MEMORY", tmp_path)
    monkeypatch.setattr(start, "ROOM", 1)
    assert _place_of_orders({}) == tmp_path
    assert _place_of_orders({"TMPDIR": "as tempfile reads it"}) == Path(tempfile.gettempdir())
    monkeypatch.setattr(start, "ROOM", 10**18)
    assert _place_of_orders({}) == Path(tempfile.gettempdir())
    monkeypatch.setattr(start, "MEMORY", tmp_path / "nowhere")
    assert _place_of_orders({}) == Path(tempfile.gettempdir())


def test_what_a_killed_service_left_in_memory_goes_and_what_another_uses_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "MEMORY", tmp_path)
    monkeypatch.setattr(start, "ROOM", 1)
    left = tmp_path / "fuseline-shared-left" / "orders"
    left.mkdir(parents=True)
    (left / "17").write_bytes(b"order")
    with start.share({}) or pytest.fail("there is no folder"):
        (used,) = tmp_path.iterdir()
        assert used.name != "fuseline-shared-left"
        with start.share({}) or pytest.fail("there is no folder"):
            assert used.is_dir()
    assert not list(tmp_path.iterdir())


def test_without_room_for_the_folder_each_worker_keeps_its_own_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    environ: dict[str, str] = {}
    assert start.share(environ) is None
    assert bundle_choice.shared_orders(environ) is None
