"""A shipped shop beside the one in params.yaml: a worktree with parameters, artifacts and champion of its own."""

from __future__ import annotations

from pathlib import Path

from pipelines.actions.runs import worktree
from pipelines.errors import ParamsError

SAMPLES = {"esci_us": "shop", "online_retail_ii": "online_retail"}
"""Folders below ``data/``, and the adapter that reads each."""


def lay(name: str, checkout: Path, *, home: Path) -> Path:
    """The folder in which a sample is built; one that is there is brought to the checkout's commit.

    Args:
        name: of :data:`SAMPLES`.
        checkout: the repository's root; its commit and params.yaml are taken.
        home: below whose ``var/samples`` the folder lies.

    Raises:
        ParamsError: for another name.
    """
    if name not in SAMPLES:
        raise ParamsError(f"there is no sample {name!r}", wanted=f"one of {', '.join(SAMPLES)}", do="name one of them")
    folder = home / "var" / "samples" / name
    if (folder / ".git").exists():
        worktree.git(folder, "checkout", "--quiet", "--force", "--detach", worktree.revision_of(checkout))
    worktree.lay_shop(checkout, folder, adapter=SAMPLES[name], path=f"data/{name}", as_of=None)
    return folder
