"""Fit one member at every window and at t2, or with ``--served`` bring it up to t3."""

from __future__ import annotations

from pipelines import params as parameters
from pipelines.errors import ParamsError
from pipelines.fitting import fit_member, write_status
from pipelines.stages.running import run, stage_parser
from pipelines.storage import read_json, replacing_folder
from pipelines.workspace import JUDGED, Workspace


def main() -> None:
    """Write ``artifacts/members/<member>/``, or ``artifacts/members_served/<member>/``."""
    parser = stage_parser("Fit one member at every window and at t2.")
    parser.add_argument("--member", required=True, help="name of the member in params.yaml")
    parser.add_argument("--served", action="store_true", help="bring the member up to t3 instead")
    told = parser.parse_args()
    params = parameters.load(told.params)
    if told.member not in params.models:
        raise ParamsError(f"models has no {told.member!r}", wanted=f"one of {', '.join(params.models)}")
    work = Workspace(told.artifacts)
    entry = params.models[told.member]
    tables = work.current if told.served else work.history
    status = work.served_status(told.member) if told.served else work.member_status(told.member)
    names = list(read_json(tables / "about.json")["instants"])
    parent = JUDGED if told.served else None
    with replacing_folder(status.parent) as folder:
        seed = params.seed
        reason = fit_member(told.member, entry, work, names, into=folder, tables=tables, seed=seed, parent=parent)
        write_status(folder / status.name, entry, reason)
    if reason:
        print(f"{told.member}: not applicable, {reason}")


if __name__ == "__main__":
    run(main)
