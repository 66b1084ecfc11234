"""Stage ``gate``: whether the candidate may become the champion, and why."""

from __future__ import annotations

from rich.console import Console

from pipelines import params as parameters
from pipelines.gating.reading import evidence
from pipelines.gating.table import shown
from pipelines.gating.verdict import decide
from pipelines.stages.running import arguments, run
from pipelines.storage import write_json


def main() -> None:
    """Write ``artifacts/gate/verdict.json``."""
    told = arguments("Judge the candidate against what the stage reference has pinned.")
    params = parameters.load(told.params)
    verdict = decide(
        evidence(told.artifacts, params), params.gate, seed=params.seed, draws=params.evaluation.bootstrap_draws
    ).as_json()
    path = told.artifacts / "gate" / "verdict.json"
    write_json(path, verdict)
    console = Console()
    console.print(shown(verdict))
    console.print(f"verdict: {verdict['verdict']} ({verdict['mode']}), {path}")


if __name__ == "__main__":
    run(main)
