"""A worker does not look through all that it keeps in the middle of a request, and still finds what is garbage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKER = """
import gc, time, weakref
from serving.garbage import Collector

class Kept: pass

def cycle():
    one = Kept()
    one.itself = one
    return weakref.ref(one)

seen = []
gc.callbacks.append(lambda phase, info: seen.append(info["generation"]) if phase == "start" else None)
before = gc.get_threshold()
collector = Collector(every_s={every_s})
collector.start()
seen.clear()
kept = [[place] for place in range(200_000)]  # by itself Python would look at old ones 28 times, and twice at all
print(set(seen))
gone = cycle()
gc.collect(0)
print(gone() is None)
one = Kept()
one.itself, old = one, weakref.ref(one)
gc.collect(0)
del one
until = time.monotonic() + {patience}
while old() is not None and time.monotonic() < until:
    time.sleep(0.01)
print(old() is None)
collector.close()
print(gc.get_threshold() == before)
"""


def said(*, every_s: float, patience: float) -> list[str]:
    command = [sys.executable, "-c", WORKER.format(every_s=every_s, patience=patience)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")


def test_only_young_objects_are_looked_at_while_more_and_more_are_kept() -> None:
    young, in_cycles, old, left_as_found, _ = said(every_s=3600, patience=0)
    assert (young, in_cycles, old, left_as_found) == ("{0}", "True", "False", "True")


def test_old_garbage_is_found_in_time() -> None:
    assert said(every_s=0.05, patience=20)[2] == "True"
