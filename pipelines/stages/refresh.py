"""Stage ``refresh``: every member brought up to t3, from its own fit at t2 where its kind starts from one.

All in one process: what a day adds takes a member a moment, and a process of its own would take longer to start.
"""

from __future__ import annotations

from pipelines import params as parameters
from pipelines.fitting import fit_member, write_status
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder
from pipelines.workspace import JUDGED, SERVED, Workspace


def main(argv: list[str] | None = None) -> None:
    """Write ``artifacts/members_served/``."""
    told = arguments("Bring every member up to t3.", argv)
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    with replacing_folder(work.root / "members_served") as folder:
        for member, entry in params.models.items():
            into = folder / member
            into.mkdir()
            reason = fit_member(
                member, entry, work, [SERVED], into=into, tables=work.current, seed=params.seed, parent=JUDGED
            )
            write_status(into / work.served_status(member).name, entry, reason)


if __name__ == "__main__":
    run(main)
