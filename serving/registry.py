"""The registry of models, asked in a process of its own.

MLflow is large, and building a Bento changes the working directory: neither belongs into a worker that
answers shoppers. ``python -m serving.registry models | promote VERSION | rollback`` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import os
import sys
from typing import Any

from pipelines.errors import FuselineError
from serving import bundle_choice
from serving.problems import Problem

TIMEOUT_S = 300


async def ask(action: str, *arguments: str) -> dict[str, Any]:
    """Run one action of the registry; one at a time is its own business.

    Raises:
        Problem: 501 where MLflow is not installed, 409 or 503 as the action says.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serving.registry",
        action,
        *arguments,
        cwd=bundle_choice.ROOT,
        env={**os.environ, "FUSELINE_HOME": str(bundle_choice.home(os.environ))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Problem(503, f"the registry did not finish `{action}` within {TIMEOUT_S} s") from None
    return _answer(action, process.returncode or 0, out, err)


def _answer(action: str, code: int, out: bytes, err: bytes) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
        raise RuntimeError(f"the registry failed at `{action}` with exit code {code}: {last[0]}") from None
    if "problem" in value:
        raise Problem(int(value["status"]), str(value["problem"]))
    return value


def run(action: str, arguments: list[str]) -> dict[str, Any]:
    """Call the action; a result that is a dataclass becomes its fields."""
    module = importlib.import_module("pipelines.actions.promote")
    if action == "models":
        return {"models": _plain(module.versions())}
    if action == "promote":
        return {"champion": _plain(module.promote_version(int(arguments[0])))}
    return {"champion": _plain(module.rollback())}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Print the answer, or the problem and its HTTP status."""
    try:
        answer = run(sys.argv[1], sys.argv[2:])
    except FuselineError as error:
        answer = {"problem": str(error), "status": error.http_status}
    except ImportError as error:
        answer = {"problem": f"this service has no model registry ({error}); promote from the checkout", "status": 501}
    sys.stdout.write(json.dumps(answer, default=str) + "\n")


if __name__ == "__main__":
    main()
