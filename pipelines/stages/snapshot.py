"""Stage ``snapshot``: fix the files of this run by their hashes.

It runs before all others and whenever a model's entry changes, so it also says what is wrong with params.yaml.
"""

from __future__ import annotations

from pipelines import model_registry
from pipelines.errors import ParamsError
from pipelines.ingestion.canonical import snapshot
from pipelines.params import load
from pipelines.search.analysis import Analyzer
from pipelines.stages.running import arguments, run
from pipelines.storage import write_json


def main(argv: list[str] | None = None) -> None:
    """Write ``snapshot/manifest.json``."""
    args = arguments("Write the manifest of the files that this run reads.", argv)
    params = load(args.params)
    for member, entry in params.models.items():
        model_registry.config(member, entry)
    try:
        Analyzer(params.text.language)
    except ValueError as error:
        raise ParamsError("text.language", found=error, do="correct it in params.yaml, or set it to null") from None
    taken = snapshot.take(params.data, home=snapshot.feedback_root())
    manifest = args.artifacts / "snapshot" / "manifest.json"
    write_json(manifest, taken.as_json())
    read = sum(file.bytes for file in (*taken.files, *taken.feedback))
    print(f"{len(taken.files)} files, {len(taken.feedback)} feedback partitions, {read / 1e6:.1f} MB: {manifest}")


if __name__ == "__main__":
    run(main)
