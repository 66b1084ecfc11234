"""Fit one member at every window and at t2."""

from __future__ import annotations

from pipelines import params as parameters
from pipelines.errors import ParamsError
from pipelines.fitting import fit_member, write_status
from pipelines.stages.running import run, stage_parser
from pipelines.storage import read_json, replacing_folder
from pipelines.workspace import Workspace


def main() -> None:
    """Write ``artifacts/members/<member>/``."""
    parser = stage_parser("Fit one member at every window and at t2.")
    parser.add_argument("--member", required=True, help="name of the member in params.yaml")
    told = parser.parse_args()
    params = parameters.load(told.params)
    if told.member not in params.models:
        raise ParamsError(f"models has no {told.member!r}", wanted=f"one of {', '.join(params.models)}")
    work = Workspace(told.artifacts)
    entry, status = params.models[told.member], work.member_status(told.member)
    names = list(read_json(work.history / "about.json")["instants"])
    with replacing_folder(status.parent) as folder:
        reason = fit_member(told.member, entry, work, names, into=folder, tables=work.history, seed=params.seed)
        write_status(folder / status.name, entry, reason)
    if reason:
        print(f"{told.member}: not applicable, {reason}")


if __name__ == "__main__":
    run(main)
