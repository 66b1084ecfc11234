"""Low-rank tuning (LoRA) of the text encoder in a process of its own, with Keras 3, as ``adapters.encoder`` has it.

Hu et al. 2021 (arXiv:2106.09685): the network stays as it is, and the query and value products of each layer's
attention get an addition of low rank. Only the side of the query is tuned: the vectors of the items are given and stay.
What is learned is a softmax over items, of the cosines divided by a temperature (Oord et al. 2018, arXiv:1807.03748):
for words of a title over all items that are learned with, for a labelled query over its candidates with the gains as
shares.

Every version starts from the one that learned from the wordings alone, and goes on with wordings beside its labels, so
that few labels do not undo what many words taught. Each is written when it is done: a killed run carries on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.adapters import lora
from pipelines.adapters.encoder import child_environment
from pipelines.errors import ArtifactError, FuselineError
from pipelines.params import TuningParams
from pipelines.search.encoding import DOWN, UP
from pipelines.storage import held, remove_unless_held, replacing_file, value_sha256, write_json
from pipelines.tuning.examples import Lesson, Wordings, padded

METHOD = "query side, query and value of attention; 1"
"""Part of what names a half-done run: a change here makes its results worthless."""

FIRST = "wordings"
"""Name of the version that learned from no label."""

UNTUNED = "untuned"
"""Name of the version that learned nothing: what the others are compared with."""

ORDER, ARRAYS = "order.json", "arrays.npz"


@dataclass(frozen=True)
class Version:
    """One tuned version: ``down`` and ``up`` as graphs take them, ``vectors`` float32 ``[asked, d]`` of the queries."""

    down: np.ndarray
    up: np.ndarray
    vectors: np.ndarray

    @property
    def additions(self) -> dict[str, np.ndarray]:
        """Inputs of the exported graph."""
        return {DOWN: self.down, UP: self.up}


@dataclass(frozen=True)
class Work:
    """What a child is asked to do.

    Attributes:
        source: folder of the encoder.
        fingerprint: of its files and settings.
        max_tokens: longer texts are cut.
        settings: of the tuning.
        seed: of the run.
        vectors: float16 ``[n_items, d]`` of all items.
        pool: codes of the items that are learned with, ascending.
        wordings: queries made of titles, of items of the pool.
        lessons: the versions to make beside :data:`FIRST` and :data:`UNTUNED`.
        asked: texts whose vectors every version gives.
    """

    source: Path
    fingerprint: str
    max_tokens: int
    settings: TuningParams
    seed: int
    vectors: np.ndarray
    pool: np.ndarray
    wordings: Wordings
    lessons: Sequence[Lesson]
    asked: Sequence[str]

    def names(self) -> list[str]:
        """The versions in the order in which they are made."""
        return [UNTUNED, FIRST, *(lesson.name for lesson in self.lessons)]

    def order(self) -> dict[str, Any]:
        """Everything but arrays, as JSON."""
        return {
            "method": METHOD,
            "source": str(self.source),
            "fingerprint": self.fingerprint,
            "max_tokens": self.max_tokens,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "wordings": self.wordings.texts,
            "asked": list(self.asked),
            "lessons": [{"name": one.name, "queries": [query.text for query in one.queries]} for one in self.lessons],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays; items are rows of the pool."""
        place_of = np.full(len(self.vectors), -1, np.int64)
        place_of[self.pool] = np.arange(len(self.pool))
        found = {"pool": np.asarray(self.vectors)[self.pool], "worded": place_of[self.wordings.items]}
        for lesson in self.lessons:
            places, shares = padded(lesson.queries, place_of)
            found |= {f"places_{lesson.name}": places, f"shares_{lesson.name}": shares}
        return found


def tune(work: Work, scratch: Path) -> dict[str, Version]:
    """Make every version, in a child process; versions that an earlier, killed call has made are not made again.

    Args:
        work: what to learn.
        scratch: folder in which half-done work lies by its content; :func:`forget` empties it.

    Raises:
        ArtifactError: when the child fails; the versions that it had made stay.
    """
    order, arrays = work.order(), work.arrays()
    content = [value_sha256(order), {name: [a.shape, _sha256(a)] for name, a in sorted(arrays.items())}]
    folder = scratch / value_sha256(content)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        return _tuned(work, folder, order, arrays)


def _tuned(work: Work, folder: Path, order: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Version]:
    if not (folder / ORDER).is_file():
        with replacing_file(folder / ARRAYS) as aside, aside.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
        write_json(folder / ORDER, order)
    if not all(_file(folder, name).is_file() for name in work.names()):
        command = [sys.executable, "-m", "pipelines.adapters.tuner", "--folder", str(folder)]
        status = subprocess.run(command, env=child_environment(), check=False).returncode  # noqa: S603 - our own module
        if status:
            raise ArtifactError(
                "the tuning of the text encoder stopped",
                found=f"exit status {status}",
                do="see its message above; run `dvc repro` again, it carries on",
            )
    return {name: _read(_file(folder, name)) for name in work.names()}


def forget(scratch: Path) -> None:
    """Remove what :func:`tune` keeps for the case of a kill, unless another run is at work there."""
    if scratch.is_dir():
        remove_unless_held(scratch)


def _sha256(values: np.ndarray) -> str:
    return value_sha256(np.ascontiguousarray(values).tobytes().hex())


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.version.npz"


def _read(path: Path) -> Version:
    with np.load(path, allow_pickle=False) as arrays:
        return Version(arrays["down"], arrays["up"], arrays["vectors"])


def _learn_here(folder: Path) -> None:
    """The child's work: every version that the folder lacks; stops when the parent is gone."""
    order: dict[str, Any] = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    lora.say(f"{len(order['wordings']):,} queries of titles, {len(order['lessons'])} versions with labels; loading")
    trainer, parent = lora.Trainer(order, arrays), os.getppid()
    start = trainer.network.additions()
    queries: dict[str, list[str]] = {one["name"]: one["queries"] for one in order["lessons"]}
    for name in [UNTUNED, FIRST, *queries]:
        path = _file(folder, name)
        if path.is_file():
            trainer.network.restore(_read(path).additions)
        else:
            trainer.network.restore(start)
            if name != UNTUNED:
                trainer.learn(name, queries.get(name, []))
            with replacing_file(path) as aside, aside.open("wb") as stream:
                np.savez(stream, vectors=trainer.vectors(), **trainer.network.additions())  # type: ignore[arg-type]
        if name == FIRST:
            start = trainer.network.additions()
        if os.getppid() != parent:
            raise ArtifactError("the run that asked for the tuning is gone", do="run `dvc repro` again; it carries on")


def main(argv: list[str] | None = None) -> None:
    """Entry of the child process."""
    parser = ArgumentParser(description="Tune the text encoder; started by the stage `tune`.")
    parser.add_argument("--folder", type=Path, required=True, help="with the order; the versions go there")
    _learn_here(parser.parse_args(argv).folder)


if __name__ == "__main__":
    try:
        main()
    except FuselineError as error:
        sys.exit(f"error: {error}")
