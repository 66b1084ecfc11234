"""How every benchmark tells how far it is and what it found: a table for people, JSON for machines and for a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pipelines.storage import write_json

Report = TypeVar("Report")


def add_output(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`tell` reads."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write JSON here too")


def tell(report: Report, told: argparse.Namespace, show: Callable[[Report], Any]) -> None:
    """Print the report as it was asked for, by ``show`` for people, and write it where it was asked to."""
    if told.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        show(report)
    if told.out:
        write_json(told.out, report)


def say(line: str) -> None:
    """A line of progress with the time of day, beside what is found."""
    print(f"{datetime.now().astimezone():%H:%M:%S} {line}", file=sys.stderr, flush=True)
