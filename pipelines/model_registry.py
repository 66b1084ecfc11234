"""Kinds of base models by name; the name of a kind is the name of its file in ``pipelines/models/``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

import pipelines.models
from pipelines.contracts import Surface
from pipelines.errors import ParamsError
from pipelines.model_api import FittedModel, Kind, ModelConfig, Speechless, SpeechlessShare
from pipelines.params import ModelEntry

BASELINE_KINDS = frozenset({"popularity", "newcomers", "repeat", "item_knn", "bm25"})
"""Kinds that count and do not learn; what a shop could do without this product."""

PARTIAL_KINDS = frozenset({"newcomers"})
"""Of them those that speak of a part of the catalogue alone, where no list for everything can be as good."""


def kind_names() -> list[str]:
    """All kinds, sorted; nothing is imported for it."""
    return sorted(module.name for module in pkgutil.iter_modules(pipelines.models.__path__))


def kind(name: str) -> Kind:
    """The kind of this name.

    Raises:
        ParamsError: when there is no such file.
    """
    if name not in kind_names():
        raise ParamsError(
            f"models: unknown kind {name!r}", wanted=f"one of {', '.join(kind_names())}", do="correct params.yaml"
        )
    found: Kind = importlib.import_module(f"pipelines.models.{name}").KIND
    return found


def speaking(kinds: Mapping[str, str], surface: Surface) -> list[str]:
    """Members that have something to say on a surface, in the order of ``kinds``: member -> kind."""
    return [member for member, name in kinds.items() if surface in kind(name).surfaces]


def fitted(name: str, folder: Path, *, n_items: int) -> FittedModel:
    """A fit of this kind; where it did not apply to an instant, and has no folder, a member without any opinion."""
    found = kind(name).fitted
    if folder.is_dir():
        return found.load(folder)
    return SpeechlessShare(n_items) if found.BOUNDED else Speechless(n_items)


def config(member: str, entry: ModelEntry) -> ModelConfig:
    """The typed configuration of a params entry.

    Raises:
        ParamsError: naming the member and every field that is wrong, and the fields there are.
    """
    config_class = kind(entry.kind).config
    try:
        return config_class.model_validate(entry.config)
    except ValidationError as error:
        lines = [f"models.{member}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        fields = ", ".join(config_class.model_fields) or "none"
        raise ParamsError(
            "params.yaml is not valid",
            found=" | ".join(lines),
            wanted=f"fields of {entry.kind}: {fields}",
            do="edit it",
        ) from None
