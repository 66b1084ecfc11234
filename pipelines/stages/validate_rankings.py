"""Stage ``validate_rankings``: can the judged lists be shown?"""

from __future__ import annotations

from expectations.rankings import checks
from pipelines.errors import ArtifactError
from pipelines.stages.running import arguments, run
from pipelines.stages.validating import validated
from pipelines.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Write ``validation/rankings.json`` and ``validation/rankings_docs/``."""
    args = arguments("Validate the lists of the evaluation.", argv)
    work = Workspace(args.artifacts)
    rankings = args.artifacts / "evaluation" / "rankings.parquet"
    if not rankings.is_file():
        raise ArtifactError(f"{rankings} does not exist", do="run `dvc repro evaluate`")
    history = work.history
    found = checks(rankings, catalog=history / "catalog.parquet", interactions=history / "interactions.parquet")
    folder = args.artifacts / "validation"
    validated(found, report=folder / "rankings.json", docs=folder / "rankings_docs")


if __name__ == "__main__":
    run(main)
