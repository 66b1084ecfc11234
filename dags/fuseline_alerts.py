"""Tell somebody: one line in the log, and a webhook if ``FUSELINE_ALERT_WEBHOOK`` names one."""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from collections.abc import Mapping
from typing import Any

LOG = logging.getLogger("fuseline.alerts")
SECONDS = 10.0


def tell(context: Mapping[str, Any]) -> None:
    """``on_failure_callback``: a task failed for good."""
    post(log(context))


def log(context: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a failure that its command has posted already: the line in the log alone; gives the alert."""
    task = context.get("task_instance") or context.get("ti")
    alert = {
        "alert": "task_failed",
        "dag": getattr(task, "dag_id", None),
        "task": getattr(task, "task_id", None),
        "run": getattr(task, "run_id", None),
        "message": " ".join(str(context.get("exception") or "no message").split()),
    }
    LOG.error("ALERT %s", json.dumps(alert, default=str, sort_keys=True))
    return alert


def post(alert: Mapping[str, Any]) -> None:
    """Post an alert as JSON; a webhook that does not answer is logged and changes nothing else."""
    address = os.environ.get("FUSELINE_ALERT_WEBHOOK", "")
    if not address.startswith(("http://", "https://")):
        return
    body = json.dumps({"text": f"Fuseline: {alert.get('message')}", **alert}, default=str).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()  # noqa: S310 - checked above
    except OSError as error:
        LOG.warning("the webhook did not take the alert: %s", error)
