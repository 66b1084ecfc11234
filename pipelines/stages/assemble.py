"""Assemble the bundle as of t3 that serves, with the judged one as its parent."""

from __future__ import annotations

from pipelines import feedback
from pipelines import params as parameters
from pipelines.manifest import MANIFEST
from pipelines.packing import pack
from pipelines.stages.running import arguments, run
from pipelines.storage import file_sha256, read_json
from pipelines.workspace import SERVED, Workspace


def main() -> None:
    """Write ``artifacts/bundle/``."""
    told = arguments("Assemble the bundle as of t3 that serves.")
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    parent = read_json(work.judged / MANIFEST)
    snapshot = read_json(work.snapshot)
    about = {
        "as_of": work.instants().served.time.isoformat(),
        "parent": parent["id"],
        "recipe": parent["recipe"],
        "data": {
            "snapshot": file_sha256(work.snapshot),
            "events_through": feedback.through(snapshot),
            "exclusions": len(snapshot["excluded"]["entries"]),
        },
    }
    manifest = pack(work, work.bundle, instant=SERVED, members=list(params.models), about=about)
    print(f"bundle {manifest['id']} as of {about['as_of']}, parent {about['parent']}")


if __name__ == "__main__":
    run(main)
