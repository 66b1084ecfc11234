"""Dying at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies by SIGKILL before its n-th touch of the file system; False when it ended."""
    child = os.fork()
    if child == 0:
        touched = 0

        def counting(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                nonlocal touched
                if touched == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                touched += 1
                return real(*arguments, **options)

            return wrapped

        for name in ("replace", "rename", "unlink", "mkdir", "fsync", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
