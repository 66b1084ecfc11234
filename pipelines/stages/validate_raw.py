"""Stage ``validate_raw``: are the canonical tables fit for training?"""

from __future__ import annotations

from datetime import datetime

from expectations.raw import checks
from pipelines.stages.running import arguments, run
from pipelines.stages.validating import validated
from pipelines.storage import read_json
from pipelines.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Write ``validation/raw.json`` and ``validation/raw_docs/``."""
    args = arguments("Validate the canonical tables.", argv)
    work = Workspace(args.artifacts)
    report = read_json(work.ingest_report)
    as_of, feedback = datetime.fromisoformat(report["as_of"]), report.get("feedback")
    found = checks(work.canonical, as_of=as_of, target=report["target"], feedback=feedback)
    folder = args.artifacts / "validation"
    validated(found, report=folder / "raw.json", docs=folder / "raw_docs")


if __name__ == "__main__":
    run(main)
