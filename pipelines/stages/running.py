"""How every stage starts and ends: its arguments, one line for an error, the error's exit code."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import FuselineError


@dataclass(frozen=True)
class StageArguments:
    """What every stage is told: where the parameters and where the artifacts lie."""

    params: Path
    artifacts: Path


def arguments(description: str, argv: list[str] | None = None) -> StageArguments:
    """Parse ``--params`` and ``--artifacts``, the only arguments a plain stage has."""
    parsed = stage_parser(description).parse_args(argv)
    return StageArguments(parsed.params, parsed.artifacts)


def stage_parser(description: str) -> ArgumentParser:
    """A parser with the two common arguments; a stage with more adds its own."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameters (default: %(default)s)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="outputs (default: %(default)s)")
    return parser


def run(main: Callable[[], object]) -> None:
    """Call ``main``; an error that is meant for the user becomes one line on stderr and its exit code.

    Anything else is a defect of ours and keeps its traceback. An interrupt ends with 130, as shells expect.
    """
    try:
        main()
    except FuselineError as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
