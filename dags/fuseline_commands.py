"""Run a command of Fuseline as a child process; what its exit code says about a retry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

import fuseline_settings as settings
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

NO_RETRY = {
    2: "parameters",
    3: "the shop's export",
    4: "expectations on the data",
    6: "a refused promotion",
    7: "a request",
}
"""Exit codes of pipelines/errors.py that are the same again when nobody does anything."""

KILL_SECONDS = 10.0
LINES_OF_AN_ERROR = 5


class FuselineCommand(BaseOperator):
    """``fuseline <arguments>`` in the checkout; gives what it printed, parsed if it is JSON.

    The child leads a process group of its own, so that a task that is stopped takes stage and all with it.

    Args:
        arguments: after ``fuseline``; templates are rendered, and what renders to nothing is left out together
            with the option before it, if that starts with ``--``.
    """

    template_fields = ("arguments",)
    ui_color = "#eef3fb"

    def __init__(self, *, arguments: Sequence[str], **kwargs: Any) -> None:
        """As :class:`BaseOperator`."""
        super().__init__(**kwargs)
        self.arguments = list(arguments)
        self._child: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> Any:
        """Run it; progress goes to the log line by line.

        Raises:
            AirflowFailException: for an exit code that a retry does not change.
            AirflowException: for any other.
        """
        command = [settings.python(), "-m", "pipelines.cli", *given(self.arguments)]
        self.log.info("in %s: %s", settings.CHECKOUT, " ".join(command))
        status, printed, said = self._run(command)
        if status:
            message = f"fuseline {self.arguments[0]}: exit {status}: {' / '.join(said[-LINES_OF_AN_ERROR:])}"
            if status in NO_RETRY:
                raise AirflowFailException(f"{message} ({NO_RETRY[status]}: a retry does not help)")
            raise AirflowException(message)
        return value_of(printed)

    def _run(self, command: Sequence[str]) -> tuple[int, str, list[str]]:
        said: list[str] = []
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            self._child = subprocess.Popen(  # noqa: S603 - our own command
                command,
                cwd=settings.CHECKOUT,
                env=environment(),
                stdout=printed,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                for line in self._child.stderr or ():
                    if line.strip():
                        self.log.info("%s", line.rstrip())
                        said = [*said[-49:], line.strip()]
                status = self._child.wait()
            finally:
                self.on_kill()
            printed.seek(0)
            return status, printed.read(), said

    def on_kill(self) -> None:
        """End the child and everything that it started: politely, then by force."""
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, sign)
                child.wait(KILL_SECONDS)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


class Promotion(FuselineCommand):
    """A command that prints ``{"promoted": ..., "reason": ...}``; not promoted leaves task skipped and run green."""

    def execute(self, context: Any) -> Any:
        """Run it.

        Raises:
            AirflowSkipException: when nothing was promoted, with the reason.
        """
        outcome = super().execute(context)
        if not outcome["promoted"]:
            raise AirflowSkipException(outcome["reason"])
        return outcome


def given(arguments: Sequence[str]) -> list[str]:
    """Arguments without the options that were left empty."""
    kept: list[str] = []
    for argument in map(str, arguments):
        if argument not in {"", "None"}:
            kept.append(argument)
        elif kept and kept[-1].startswith("--"):
            kept.pop()
    return kept


def value_of(printed: str) -> Any:
    """What a command printed: JSON if it is, else its text."""
    try:
        return json.loads(printed)
    except ValueError:
        return printed.strip()


def environment() -> dict[str, str]:
    """The variables of a child: those of here without Airflow's own, which hold its secrets."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW__", "_AIRFLOW", "PYTHONDONTWRITE"))}
    bin_folder = os.path.dirname(settings.python())  # noqa: PTH120 - a bare name stays a bare name
    paths = [*([bin_folder] if bin_folder else []), os.environ.get("PATH", os.defpath)]
    return known | {"FUSELINE_HOME": str(settings.home()), "PATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
