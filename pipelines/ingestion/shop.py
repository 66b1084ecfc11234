"""The canonical export: folders ``catalog/``, ``events/``, ``judgments/``, ``users/``, only the first required.

Each holds any number of ``.parquet``, ``.csv`` or ``.jsonl`` files in any nesting, with the columns of
``contracts``. Ids are text, byte for byte: a number in an id column stops the run, except in CSV, where
everything is text.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath

from pipelines.contracts import CATALOG, EVENTS, JUDGMENTS, TABLES, USERS
from pipelines.ingestion.canonical import rules
from pipelines.ingestion.canonical.adapter import Adapter, Source
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.reading import Reader


def _source_of(path: PurePosixPath) -> str | None:
    folder = path.parts[0] if len(path.parts) > 1 else ""
    return folder if folder in TABLES else None


def _stage(database: Database, reader: Reader, as_of: datetime | None) -> None:
    del as_of
    reader.load(CATALOG.name, rules.STAGED[CATALOG.name], lambda scanned: rules.checked(scanned, CATALOG))
    known = database.create("known_items", rules.known_items(database.table(rules.STAGED[CATALOG.name])))
    for contract in (EVENTS, JUDGMENTS, USERS):
        reader.load(
            contract.name,
            rules.STAGED[contract.name],
            lambda scanned, contract=contract: rules.checked(scanned, contract, known=known),  # type: ignore[misc]
            numbered=contract is not EVENTS,
        )


ADAPTER = Adapter(
    sources={
        CATALOG.name: Source(CATALOG, required=True),
        EVENTS.name: Source(EVENTS),
        JUDGMENTS.name: Source(JUDGMENTS),
        USERS.name: Source(USERS),
    },
    source_of=_source_of,
    layout="folders catalog/ (required), events/, judgments/, users/ with .parquet, .csv or .jsonl files",
    stage=_stage,
)
