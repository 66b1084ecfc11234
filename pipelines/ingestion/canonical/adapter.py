"""What an adapter is, and how one is found: its name is its file's name in ``pipelines/ingestion/``.

A new shop system needs one file with a module-level ``ADAPTER = Adapter(...)``; nothing else changes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pipelines.ingestion
from pipelines.contracts import Table
from pipelines.errors import ParamsError

if TYPE_CHECKING:
    from pipelines.ingestion.canonical.database import Database
    from pipelines.ingestion.canonical.reading import Reader


@dataclass(frozen=True)
class Source:
    """One kind of file that an adapter reads.

    Attributes:
        table: columns that are read, by the names the adapter uses.
        required: the export makes no sense without a file of this kind.
        aliases: other spellings of a column's name in files, first match wins; the column's own name is always one.
        ids_may_be_numbers: whether an integer in a text column is read as its decimal digits instead of stopping
            the run; only for systems whose ids have no leading zeros to lose.
    """

    table: Table
    required: bool = False
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids_may_be_numbers: bool = False

    def spellings(self, column: str) -> tuple[str, ...]:
        """All names that a file may give to a column."""
        return (column, *self.aliases.get(column, ()))


@dataclass(frozen=True)
class Adapter:
    """How files of one system become the canonical tables.

    Attributes:
        sources: what it reads, by name.
        source_of: name of the source that a file (path within the export) belongs to, or None.
        layout: one sentence for error messages: which files it expects where.
        stage: fills the tables ``staged_<canonical table>`` of the database: the contract's columns plus
            those of ``rules.BOOKKEEPING``; ``as_of`` is what params say (None: not given). An adapter that
            derives the catalogue from events must not look at or beyond it.
    """

    sources: Mapping[str, Source]
    source_of: Callable[[PurePosixPath], str | None]
    layout: str
    stage: Callable[[Database, Reader, datetime | None], None]


def adapter_names() -> list[str]:
    """All adapters, sorted; nothing is imported for it."""
    return sorted(module.name for module in pkgutil.iter_modules(pipelines.ingestion.__path__) if not module.ispkg)


def adapter(name: str) -> Adapter:
    """The adapter of this name.

    Raises:
        ParamsError: when there is no such file.
    """
    if name not in adapter_names():
        raise ParamsError(
            "data.adapter: there is no such adapter",
            found=repr(name),
            wanted=f"one of {', '.join(adapter_names())}",
            do="correct data.adapter in params.yaml, or write the canonical export and set it to shop",
        )
    found: Adapter = importlib.import_module(f"pipelines.ingestion.{name}").ADAPTER
    return found
