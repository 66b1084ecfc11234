"""The inner loops of a search, compiled: what numpy does in many passes over small arrays, done in one.

``make env`` builds ``_kernels.c`` where the machine has a C compiler. Without one, :data:`kernels` is None and numpy
does the work, equal to the bit and about half as fast: each function stands beside its twin.

======================  ==========================================
``leading``             ``model_api.leading``
``products``            ``rounded_vectors.RoundedVectors.products``
``direction``           ``rounded_vectors.RoundedVectors.direction``
``half_byte_products``  ``half_bytes.HalfByteVectors.products``
``posting_sums``        ``models.bm25``
``opinions``            ``models.bm25``
``distinct``            ``fusion.candidates.gather``
``scaled``              ``fusion.candidates.scaled``
``descending``          ``fusion.quality.ordered``
======================  ==========================================

All take contiguous arrays of the very types that ``_kernels.pyi`` and the file itself name, and refuse others; lengths
and places are checked, so a damaged index is an error and not a crash.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

# A worktree of a run or a sample has no compiled file: the one of the checkout that is installed serves it too.
__path__ += [f"{entry}/pipelines/native" for entry in sys.path if entry]

SWITCH = "FUSELINE_NATIVE"
"""Environment variable; ``0``: numpy does the work though the kernels are built."""

WANTED = 3
"""``VERSION`` of the compiled file, raised when a function changes; one from before an update is left alone."""


def _found() -> tuple[ModuleType | None, str]:
    if os.environ.get(SWITCH) == "0":
        return None, f"switched off by {SWITCH}=0"
    try:
        from pipelines.native import _kernels
    except ImportError as error:
        return None, f"not built: {error}"
    if _kernels.VERSION != WANTED:
        return None, f"built for another version ({_kernels.VERSION}, wanted {WANTED})"
    return _kernels, "in use"


kernels, state = _found()
"""The compiled functions, or None; and why, for people."""
