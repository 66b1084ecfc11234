"""``python -m pipelines``: the command line by an interpreter that is named, wherever its scripts lie."""

from __future__ import annotations

from pipelines.cli import app

if __name__ == "__main__":
    app(prog_name="fuseline")
