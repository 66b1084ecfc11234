"""Stage ``evaluate``: the judged bundle on the holdout, as numbers, tables and a report."""

from __future__ import annotations

from rich.console import Console

from pipelines import champion
from pipelines import params as parameters
from pipelines.evaluation import evaluator
from pipelines.evaluation.console import headline, progress
from pipelines.evaluation.kept_lists import KeptLists
from pipelines.evaluation.protocol import Lister
from pipelines.stages.running import arguments, run
from pipelines.storage import file_sha256
from pipelines.workspace import Workspace


def main() -> None:
    """Write ``artifacts/evaluation/``."""
    told = arguments("Measure the judged bundle on the holdout.")
    params = parameters.load(told.params)
    console = Console()
    work = Workspace(told.artifacts)
    kept = KeptLists(champion.home_from_environment(), code=file_sha256(work.code("evaluate")))
    evaluation = evaluator.evaluate(work, params, lister=Lister(progress(console), kept))
    kept.forget()
    folder = told.artifacts / "evaluation"
    evaluator.save(evaluation, folder)
    for part in headline(evaluation.documents):
        console.print(part, highlight=False)
    console.print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    run(main)
