"""The protocol of a fuser, and how a method's name finds its file."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.contracts import Surface
from pipelines.errors import ParamsError
from pipelines.fusion.candidates import CandidateList
from pipelines.fusion.features import Part, joined

METHODS: tuple[str, ...] = ("best_single", "weighted", "reciprocal_rank", "stacking", "convex")
"""A method is the file of its name in this folder; ``auto`` chooses among them."""


JUDGMENTS = "judgments"
"""In the place of a window's name: lists whose gains are people's judgments, which have no time."""


class FuserConfig(BaseModel):
    """Base of a fuser's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plain(self) -> Self:
        """The same without what stays only where it helps on the labels; itself where all of it is needed."""
        return self


@dataclass(frozen=True)
class LabelledList:
    """One list to learn from.

    Attributes:
        candidates: the candidates as the service would have seen them at the window's start.
        features: float32 ``[m, n_features]``, of ``fusion.features.describe``, on ``search`` with those of the query.
        gains: float32 ``[m]``, what each candidate was worth: 1 for an item bought within the window, else 0; a judged
            one has the gain of its judgment.
        ideal: float32 ``[r]``, gains of all items above 0, found by the members or not, best first.
        window: name of the window; :data:`JUDGMENTS` for lists that people judged.
        query: what was asked, normalised; empty on lists without a query.
    """

    candidates: CandidateList
    features: np.ndarray
    gains: np.ndarray
    ideal: np.ndarray
    window: str
    query: str = ""

    @property
    def relevant(self) -> np.ndarray:
        """Bool ``[m]``: worth anything."""
        found: np.ndarray = self.gains > 0
        return found


class FittedFuser(ABC):
    """Scores candidates; read-only, thread-safe, numpy only."""

    @abstractmethod
    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """Float32 ``[m]``, higher is better; ``features`` only where :attr:`reads_features`."""

    def score_parts(self, candidates: CandidateList, described: Sequence[Part]) -> np.ndarray:
        """As :meth:`score` where :attr:`reads_features`, from ``fusion.features.parts``.

        One that can do with fewer rows, or keep what it makes of a catalogue, overrides it with equal results.
        """
        return self.score(candidates, joined(described))

    @property
    def reads_features(self) -> bool:
        """Whether ``score`` needs the candidates' features."""
        return False

    @property
    def reads_feedback_alone(self) -> bool:
        """Whether, of all features of a search, ``score_parts`` needs the last alone (``feedback_part``)."""
        return False

    def plain(self) -> FittedFuser:
        """What a fit with ``FuserConfig.plain`` gives; itself where there is nothing to leave out."""
        return self

    @abstractmethod
    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """Share of each member in the list, adding up to 1, for explanations and the report.

        ``bounded``: those of the members whose scores are shares (``FittedModel.BOUNDED``).
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``.npy`` and ``.json`` files into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""


@dataclass(frozen=True)
class Method:
    """A fusion method: ``fit(config, lists, members, *, seed) -> FittedFuser``.

    ``learns``: whether it needs labelled lists; ``surfaces``: on which it has what it reads.
    """

    config: type[FuserConfig]
    fitted: type[FittedFuser]
    fit: Callable[..., FittedFuser]
    learns: bool = True
    surfaces: frozenset[Surface] = frozenset(Surface)


def method(name: str) -> Method:
    """The method of this name."""
    found: Method = importlib.import_module(f"pipelines.fusion.{name}").METHOD
    return found


def config(name: str, values: dict[str, Any]) -> FuserConfig:
    """The typed configuration of ``params.fusion.<name>``."""
    config_class = method(name).config
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        lines = [f"fusion.{name}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ParamsError(
            "params.yaml is not valid",
            found=" | ".join(lines),
            wanted=f"fields of {name}: {', '.join(config_class.model_fields) or 'none'}",
            do="edit it",
        ) from None
