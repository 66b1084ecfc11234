"""Stage ``ingest``: the snapshot's files become the canonical tables."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from pipelines.ingestion.canonical.ingest import ingest
from pipelines.ingestion.canonical.report import shown
from pipelines.ingestion.canonical.snapshot import Snapshot, feedback_root
from pipelines.params import load
from pipelines.stages.running import arguments, run


def main(argv: list[str] | None = None) -> None:
    """Write ``canonical/``, ``quarantine/`` and ``ingest/report.json``."""
    args = arguments("Read the snapshot's files into the canonical tables.", argv)
    snapshot = Snapshot.read(args.artifacts / "snapshot" / "manifest.json")
    home = feedback_root()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=sum(f.bytes for f in (*snapshot.files, *snapshot.feedback)))
        report = ingest(
            snapshot,
            load(args.params).data,
            home=home,
            artifacts=args.artifacts,
            progress=lambda done: progress.advance(task, done),
        )
    shown(report, Console())
    print(f"tables: {args.artifacts / 'canonical'}, bad rows: {args.artifacts / 'quarantine'}")


if __name__ == "__main__":
    run(main)
