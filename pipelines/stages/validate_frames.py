"""Stage ``validate_frames``: is what members learn from free of leaks and damage?"""

from __future__ import annotations

from expectations.frames import checks
from pipelines.stages.running import arguments, run
from pipelines.stages.validating import validated
from pipelines.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Write ``validation/frames.json`` and ``validation/frames_docs/``."""
    args = arguments("Validate the split and the features.", argv)
    folder = args.artifacts / "validation"
    validated(checks(Workspace(args.artifacts)), report=folder / "frames.json", docs=folder / "frames_docs")


if __name__ == "__main__":
    run(main)
