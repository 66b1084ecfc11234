"""The champion's recipe fitted again at the candidate's t2, by the champion's own code.

So that freshness alone cannot win: both recipes learn from the same data up to the same instant. A step
runs in its own process on the source that the champion's judged bundle carries. A step whose code,
parameters and inputs are those of the candidate is not run: by determinism its output is the candidate's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import ArtifactError, ParamsError
from pipelines.params import parse
from pipelines.recipe import SOURCE, code_sha256, unpack_source
from pipelines.source_code import SourceCode
from pipelines.storage import replacing_folder, write_text

Say = Callable[[str], None]
GIVEN = ("canonical", "ingest", "snapshot")
"""Outputs that come before any recipe: the data."""
FROM_THE_CANDIDATE = {"data": ("path", "as_of"), "split": ("holdout_days", "grid_anchor")}
BUILDS_ON = {"tuned_text": ("tune",), "query_tower": ("encode_queries",)}
"""Steps that a kind builds on beside the features."""
ERROR_LINES = 3


@dataclass(frozen=True)
class Step:
    """One stage of the refit.

    Attributes:
        name: of the stage, and for a member ``train@member``.
        arguments: beside ``--params`` and ``--artifacts``.
        shape: parameters that it reads.
        modules: where its code starts.
        inputs: steps that it builds on.
        outputs: paths under artifacts.
    """

    name: str
    arguments: dict[str, str]
    shape: Any
    modules: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Parameters as they are written, and the folder with the source that reads them.

    They stay plain values: another version of the library may know other names.
    """

    values: Mapping[str, Any]
    source: Path

    def steps(self) -> dict[str, Step]:
        """The stages from canonical tables to the judged bundle, in order."""
        return steps(self.values)


def steps(values: Mapping[str, Any]) -> dict[str, Step]:
    """The stages that these parameters ask for; parameters that this version understands get their defaults."""
    with suppress(ParamsError):
        values = parse(dict(values)).model_dump(mode="json")
    seed, members, text = values["seed"], values["models"], values.get("text")
    train = {name: f"train@{name}" for name in members}
    found = [
        _step("split", [values.get("split"), seed], (), ("split",)),
        _step("encode", _without(text, "tuning", "distillation"), ("split",), ("text",)),
        _step("encode_queries", [_without(text, "tuning"), seed], ("encode",), ("query_encoder", "distillation")),
        _step("features", seed, ("encode", "split"), ("features",)),
        _step("tune", [text, seed], ("features", "encode_queries"), ("tuned",)),
        *(
            _step(
                "train",
                [entry, seed],
                ("features", *BUILDS_ON.get(entry["kind"], ())),
                (f"members/{name}",),
                member=name,
                kind=entry["kind"],
            )
            for name, entry in members.items()
        ),
        _step("members", list(members), tuple(train.values()), ("members.json",)),
        _step("fuse", [values.get("fusion"), list(members), seed], ("features", "members"), ("fusion",)),
        _step("judge", [list(members), seed], ("fuse",), ("judged",)),
    ]
    return {step.name: step for step in found}


def _without(section: Any, *names: str) -> Any:
    return {key: value for key, value in section.items() if key not in names} if isinstance(section, dict) else section


def _step(
    stage: str, shape: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], *, member: str = "", kind: str = ""
) -> Step:
    return Step(
        name=f"{stage}@{member}" if member else stage,
        arguments={"member": member} if member else {},
        shape=shape,
        modules=(f"pipelines.stages.{stage}", *((f"pipelines.models.{kind}",) if kind else ())),
        inputs=inputs,
        outputs=outputs,
    )


def reusable(old: Recipe, new: Recipe) -> frozenset[str]:
    """Names of the old recipe's steps whose output equals the new recipe's; never ``fuse`` and ``judge``."""
    ours, theirs = new.steps(), old.steps()
    code_then, code_now = SourceCode(old.source), SourceCode(new.source)
    same: set[str] = set()
    for name, step in theirs.items():
        if name not in ours or name in {"fuse", "judge"} or not same.issuperset(step.inputs):
            continue
        code = code_sha256(code_then, step.modules) == code_sha256(code_now, ours[name].modules)
        if code and step.shape == ours[name].shape:
            same.add(name)
    return frozenset(same)


def refit(champion_judged: Path, candidate: Recipe, artifacts: Path, work: Path, *, home: Path, say: Say) -> Path:
    """Make the judged bundle of the champion's recipe on the candidate's data.

    Args:
        champion_judged: the champion's judged bundle, which carries its source.
        candidate: parameters and source of the candidate.
        artifacts: of the candidate, everything up to ``judged`` made.
        work: folder of this refit, named after what goes into it; a killed one is carried on.
        home: ``FUSELINE_HOME``.
        say: told of each step.

    Returns:
        The folder of the refitted judged bundle.

    Raises:
        ArtifactError: when the source is missing, or a step fails; the message ends with what it said.
    """
    source = source_of(champion_judged, work)
    old = Recipe(on_candidates_data(source / "params.yaml", candidate.values), source)
    params_file = work / "params.yaml"
    write_text(params_file, yaml.safe_dump(dict(old.values), sort_keys=False))
    same, made = reusable(old, candidate), work / "artifacts"
    (made / "members_served").mkdir(parents=True, exist_ok=True)  # an older source looks there for members to remove
    _link(GIVEN, artifacts, made)
    for name, step in old.steps().items():
        done = work / "done" / name
        module = f"pipelines.stages.{name.partition('@')[0]}"
        if not (source / Path(*module.split("."))).with_suffix(".py").exists():
            say(f"skip {name}: the champion's source has no such stage")
        elif name in same:
            say(f"reuse {name}: its code, parameters and inputs are the candidate's")
            _link(step.outputs, artifacts, made)
        elif done.exists():
            say(f"reuse {name}: made before")
        else:
            say(f"refit {name} with the champion's code and parameters")
            arguments = step.arguments | {"params": params_file, "artifacts": made}
            run_module(module, arguments, source=source, home=home, what=name)
            write_text(done, "")
    return made / "judged"


def source_of(champion_judged: Path, work: Path) -> Path:
    """The folder with the source that a judged bundle carries, unpacked once."""
    source, packed = work / "source", champion_judged / SOURCE
    if not source.exists():
        if not packed.exists():
            raise ArtifactError(f"{champion_judged} carries no {SOURCE}", do="use --force if you know it is better")
        with replacing_folder(source) as aside:
            unpack_source(packed, aside)
    return source


def on_candidates_data(params_file: Path, candidate: Mapping[str, Any]) -> dict[str, Any]:
    """The champion's parameters, except for which data are read and where the holdout starts."""
    values: dict[str, Any] = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    for section, names in FROM_THE_CANDIDATE.items():
        values[section] = (values.get(section) or {}) | {name: candidate[section][name] for name in names}
    return values


def _link(names: tuple[str, ...], artifacts: Path, made: Path) -> None:
    for name in names:
        target = made / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (artifacts / name).exists() and not target.exists():
            target.unlink(missing_ok=True)
            target.symlink_to((artifacts / name).resolve())


def run_module(module: str, arguments: Mapping[str, object], *, source: Path, home: Path, what: str) -> None:
    """Run a module of a source in a process of its own, which sees no other copy of the library.

    Raises:
        ArtifactError: when it fails; the message ends with what it said.
    """
    command = [sys.executable, "-m", module]
    for name, value in arguments.items():
        command += [f"--{name}", str(value.resolve()) if isinstance(value, Path) else str(value)]
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "FUSELINE_HOME": str(home.resolve())}
    answer = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own modules
    if answer.returncode:
        said = " ".join(_last_lines(answer.stderr or answer.stdout))
        raise ArtifactError(f"{what} could not be made with the champion's own code", found=said or "no message")


def _last_lines(text: str) -> Iterator[str]:
    yield from [line.strip() for line in text.splitlines() if line.strip()][-ERROR_LINES:]
