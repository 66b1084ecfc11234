"""Stage ``reference``: the champion of this moment, and its lists on the candidate's holdout."""

from __future__ import annotations

from rich.console import Console

from pipelines import champion, params
from pipelines.gating import pinning
from pipelines.recipe import ROOT
from pipelines.stages.running import arguments, run


def main() -> None:
    """Write ``artifacts/reference/``."""
    told = arguments("Pin what the gate compares the candidate with.")
    console = Console()
    pinned = pinning.pin(
        told.artifacts.resolve(),
        params.load(told.params),
        source=ROOT,
        home=champion.home_from_environment(),
        say=console.print,
    )
    pinning.save(pinned, told.artifacts / "reference")


if __name__ == "__main__":
    run(main)
