"""Which events count as positive, how much, and which type is the one to predict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipelines.contracts import DEFAULT_STRENGTH, TARGET_ORDER
from pipelines.errors import ParamsError
from pipelines.params import DataParams


@dataclass(frozen=True)
class Positives:
    """``target``: None when the log has no positive event; ``strengths``: weight per positive type."""

    target: str | None
    strengths: dict[str, float]


def choose(present: Collection[str], data: DataParams) -> Positives:
    """Parameters first, then what the shop has: purchases, else carts, else views.

    Types that the log lacks keep their strength: the service may see them tomorrow.

    Raises:
        ParamsError: ``data.strengths`` is given and leaves out ``data.target``.
    """
    strengths = dict(data.strengths or DEFAULT_STRENGTH)
    if data.target is not None:
        if data.strengths is not None and data.target not in data.strengths:
            raise ParamsError(
                f"data.target {data.target!r} has no weight",
                found=f"data.strengths for {', '.join(sorted(data.strengths))}",
                wanted="a weight for the target",
                do="add it to data.strengths in params.yaml",
            )
        strengths.setdefault(data.target, 1.0)
        return Positives(data.target if data.target in present else None, strengths)
    usual = [name for name in TARGET_ORDER if name in strengths and name in present]
    others = sorted((name for name in strengths if name in present), key=lambda name: (-strengths[name], name))
    return Positives(next(iter([*usual, *others]), None), strengths)
