"""Name the members that this run expects, and remove what an earlier run left of others."""

from __future__ import annotations

import shutil

from pipelines import params as parameters
from pipelines.errors import ArtifactError
from pipelines.stages.running import arguments, run
from pipelines.storage import read_json, write_json
from pipelines.workspace import Workspace


def main() -> None:
    """Write ``artifacts/members.json``."""
    told = arguments("Name the members that this run expects.")
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    found = {}
    for member in params.models:
        if not work.member_status(member).exists():
            raise ArtifactError(f"member {member} was not fitted", do=f"run `dvc repro train@{member}`")
        found[member] = read_json(work.member_status(member))
    folder = work.root / "members"
    for stale in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in params.models):
        shutil.rmtree(stale)
        print(f"removed {stale}: params.yaml names no such member")
    write_json(work.root / "members.json", found)
    for member, status in found.items():
        print(f"{member}: {status['kind']}" + (f", not applicable: {status['reason']}" if status["reason"] else ""))


if __name__ == "__main__":
    run(main)
