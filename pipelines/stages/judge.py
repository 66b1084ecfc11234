"""Assemble the bundle as of t2 that the holdout judges."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines import params as parameters
from pipelines.packing import pack
from pipelines.recipe import ROOT, SOURCE, pack_source, recipe_of
from pipelines.stages.running import arguments, run
from pipelines.storage import file_sha256
from pipelines.workspace import JUDGED, Workspace


def main() -> None:
    """Write ``artifacts/judged/``; without a holdout it knows all that what serves knows."""
    told = arguments("Assemble the bundle as of t2 that the holdout judges.")
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    instant = work.instants().before_holdout[-1]
    about = {
        "as_of": instant.time.isoformat(),
        "parent": None,
        "recipe": recipe_of(params, ROOT),
        "data": {"history": file_sha256(work.history / "interactions.parquet")},
    }
    with TemporaryDirectory() as folder:
        source = pack_source(ROOT, Path(folder) / SOURCE, params_file=told.params)
        members = list(params.models)
        manifest = pack(work, work.judged, instant=JUDGED, members=members, about=about, extra={SOURCE: source})
    print(f"judged bundle {manifest['id']} as of {about['as_of']}")


if __name__ == "__main__":
    run(main)
