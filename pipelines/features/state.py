"""Feature state as of one instant: what training reads and what the bundle ships."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.arrays import read_array, read_arrays, write_arrays
from pipelines.errors import ArtifactError
from pipelines.features.definitions import USER, USER_ITEM
from pipelines.ids import IdIndex
from pipelines.rounded_vectors import RoundedVectors
from pipelines.storage import read_json, write_json

CATALOG = "catalog.arrow"
"""Uncompressed: three times the file of Parquet, and none of it in a worker's own memory."""


@dataclass(frozen=True)
class UserItems:
    """Aggregates per (history, item) in compressed rows; a user's items come most recent first.

    ``pointer`` int64 ``[n_users + 1]``, ``items`` int32 ``[n]``, each of ``aggregates`` float32 ``[n]``.
    """

    pointer: np.ndarray
    items: np.ndarray
    aggregates: dict[str, np.ndarray]

    @property
    def users(self) -> np.ndarray:
        """User code of every entry, int64 ``[n]``."""
        return np.repeat(np.arange(len(self.pointer) - 1), np.diff(self.pointer))


@dataclass(frozen=True)
class UserHistory:
    """One user's history, finished for scoring.

    ``items`` int64 ``[m]`` distinct codes, most recent first; ``aggregates`` per item, float32 ``[m]``,
    by the names of ``definitions.USER_ITEM``; ``user`` by the names of ``definitions.USER``;
    ``attributes``: name -> code within that attribute's values, absent when unknown.
    """

    items: np.ndarray
    aggregates: dict[str, np.ndarray]
    user: dict[str, float]
    attributes: dict[str, int] = field(default_factory=dict)

    @classmethod
    @functools.cache
    def empty(cls) -> UserHistory:
        """The history of somebody never met, one for all of them."""
        none = np.zeros(0, np.float32)
        return cls(np.zeros(0, np.int64), {a.name: none for a in USER_ITEM}, {a.name: a.empty for a in USER})

    @property
    def seen(self) -> np.ndarray:
        """Codes of items with an event of the target type, int64."""
        return self.items[self.aggregates["bought"] > 0]

    def __len__(self) -> int:
        """Number of distinct items."""
        return len(self.items)


@dataclass(frozen=True)
class FeatureState:
    """Items, users and their aggregates as of ``time``.

    Attributes:
        time: the instant; nothing at or after it is in here.
        item_ids: code <-> id of the items that existed at the instant.
        user_ids: code <-> history id.
        catalog: one row per item in code order, columns of ``contracts.CATALOG``.
        items: aggregates by the names of ``definitions.ITEM`` plus ``buyers`` (distinct histories with the
            target), ``repeat_buyers`` (those with two or more), ``new_buyers`` (first met within 28 days) and
            ``price`` (NaN when unknown), float32 ``[n_items]``.
        users: aggregates by the names of ``definitions.USER``, float32 ``[n_users]``.
        user_items: aggregates per (history, item).
        attribute_values: per user attribute, its values; a value's place is its code.
        user_attributes: per user attribute, int32 ``[n_users]``, -1 unknown.
        text: item text vectors, float16 ``[n_items, d]``, unit length, zero rows where there is no text;
            None without an encoder.
        target: event type that the models predict.
        strengths: weight per positive event type.
        language: of the texts in Latin script, by Snowball's name; None: words are not stemmed.
        n_searches: interactions that say what was searched for before.
        words: the words of the catalogue and how often each occurs, of ``spelling.counted``; empty where nobody types.
        variants: rare spellings among these words, and the frequent word of each, of ``search.variants``.
        phrases: the phrases of its titles and how often each occurs, of ``phrases.counted``; empty likewise.
        searched: what people searched for and then chose something, and how many did; empty likewise.
        interactions: parquet of ``contracts.INTERACTIONS`` that may reach beyond ``time``; read it only
            through ``history.interactions``, which cuts. None in a bundle.
        tuned: folder of the tuned encoder of queries as of the instant (``tuning.saved``). None in a bundle.
        encoder: folder of the encoder of queries (``search.encoding``); None without one, and in a bundle.
        judgments: parquet of ``contracts.JUDGMENTS``, which have no time: who learns from them answers
            ``FittedModel.judging``. None in a bundle, and where nothing judged may be known.
    """

    time: datetime
    item_ids: IdIndex
    user_ids: IdIndex
    catalog: pa.Table
    items: dict[str, np.ndarray]
    users: dict[str, np.ndarray]
    user_items: UserItems
    attribute_values: dict[str, list[str]]
    user_attributes: dict[str, np.ndarray]
    text: np.ndarray | None
    target: str
    strengths: dict[str, float]
    language: str | None = "english"
    words: dict[str, int] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    n_searches: int = 0
    phrases: dict[str, int] = field(default_factory=dict)
    searched: dict[str, int] = field(default_factory=dict)
    interactions: Path | None = None
    tuned: Path | None = None
    encoder: Path | None = None
    judgments: Path | None = None

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @property
    def n_users(self) -> int:
        """Number of histories."""
        return len(self.user_ids)

    @functools.cached_property
    def rounded_text(self) -> RoundedVectors | None:
        """``text`` in bytes, which takes a quarter of the time to compare; of a state that was saved, memory-mapped."""
        return None if self.text is None else RoundedVectors.of(self.text)

    def history(self, user: int) -> UserHistory:
        """The history of a user code as of the instant; -1 gives the empty one."""
        if user < 0:
            return UserHistory.empty()
        span = slice(int(self.user_items.pointer[user]), int(self.user_items.pointer[user + 1]))
        return UserHistory(
            np.asarray(self.user_items.items[span], np.int64),
            {name: np.asarray(values[span]) for name, values in self.user_items.aggregates.items()},
            {name: float(values[user]) for name, values in self.users.items()},
            {name: int(codes[user]) for name, codes in self.user_attributes.items() if codes[user] >= 0},
        )

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder, except what is a path."""
        self.item_ids.save(folder, "item_ids")
        self.user_ids.save(folder, "user_ids")
        with pa.ipc.new_file(folder / CATALOG, self.catalog.schema) as file:
            file.write_table(self.catalog.combine_chunks())
        write_arrays(folder / "items", self.items)
        write_arrays(folder / "users", self.users)
        write_arrays(folder / "user_items", {"pointer": self.user_items.pointer, "items": self.user_items.items})
        write_arrays(folder / "user_items" / "aggregates", self.user_items.aggregates)
        write_arrays(folder / "user_attributes", self.user_attributes)
        if self.text is not None and self.rounded_text is not None:
            write_arrays(folder / "text", {"vectors": self.text})
            self.rounded_text.save(folder / "text")
        write_json(folder / "words.json", self.words)
        write_json(folder / "variants.json", self.variants)
        write_json(folder / "phrases.json", self.phrases)
        write_json(folder / "searched.json", self.searched)
        write_json(
            folder / "state.json",
            {
                "time": self.time.isoformat(),
                "target": self.target,
                "strengths": self.strengths,
                "language": self.language,
                "n_searches": self.n_searches,
                "attribute_values": self.attribute_values,
                "has_text": self.text is not None,
            },
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        interactions: Path | None = None,
        tuned: Path | None = None,
        encoder: Path | None = None,
        judgments: Path | None = None,
    ) -> FeatureState:
        """Read what :meth:`save` wrote, memory-mapped; what is a path is taken as it is.

        Raises:
            ArtifactError: when the folder is missing or incomplete.
        """
        if not (folder / "state.json").exists():
            raise ArtifactError(f"{folder} holds no feature state", do="run `dvc repro`")
        about: dict[str, Any] = read_json(folder / "state.json")
        user_items = read_arrays(folder / "user_items")
        state = cls(
            time=datetime.fromisoformat(about["time"]),
            item_ids=IdIndex.load(folder, "item_ids"),
            user_ids=IdIndex.load(folder, "user_ids"),
            catalog=_catalog(folder),
            items=read_arrays(folder / "items"),
            users=read_arrays(folder / "users"),
            user_items=UserItems(
                user_items["pointer"], user_items["items"], read_arrays(folder / "user_items" / "aggregates")
            ),
            attribute_values=about["attribute_values"],
            user_attributes=read_arrays(folder / "user_attributes"),
            text=read_array(folder / "text" / "vectors.npy") if about["has_text"] else None,
            target=about["target"],
            strengths=about["strengths"],
            language=about.get("language", "english"),
            n_searches=about.get("n_searches", 0),
            words=_by_text(folder / "words.json"),
            variants=_by_text(folder / "variants.json"),
            phrases=_by_text(folder / "phrases.json"),
            searched=_by_text(folder / "searched.json"),
            interactions=interactions,
            tuned=tuned,
            encoder=encoder,
            judgments=judgments,
        )
        if about["has_text"]:
            vars(state)["rounded_text"] = RoundedVectors.load(folder / "text")
        return state


def _catalog(folder: Path) -> pa.Table:
    """The catalogue, memory-mapped: workers share what they read of it, and descriptions are not even read."""
    path, earlier = folder / CATALOG, folder / "catalog.parquet"
    if not path.exists() and earlier.exists():
        return pq.read_table(earlier)
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist", do="run `dvc repro`") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path} is damaged", found=error, do="delete its folder and run `dvc repro`") from error


def _by_text(path: Path) -> dict[str, Any]:
    """What was noted of texts; nothing in a state that was written before it was."""
    return read_json(path) if path.exists() else {}
