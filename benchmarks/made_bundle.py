"""Bundles for measuring and testing the service: a small made one, and any bundle blown up in size.

Nothing here says anything about quality; shapes, files and code paths are those of a real bundle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import model_registry
from pipelines.arrays import read_array
from pipelines.contracts import CATALOG, EventType, Surface
from pipelines.features.definitions import ITEM, USER, USER_ITEM, Aggregate
from pipelines.features.lookup import fold
from pipelines.features.state import FeatureState, UserItems
from pipelines.fusion.convex import Convex
from pipelines.fusion.weighted import Weighted
from pipelines.ids import IdIndex
from pipelines.manifest import MANIFEST
from pipelines.model_api import TrainingData
from pipelines.models import bm25
from pipelines.models.item_knn import ItemKnn
from pipelines.models.popularity import Popularity
from pipelines.models.repeat import Repeat
from pipelines.models.two_tower import FittedTwoTower
from pipelines.neighbours import Neighbours
from pipelines.prepared import FOLDER as PREPARED
from pipelines.prepared import Prepared
from pipelines.search import phrases, spelling
from pipelines.search.documents import written
from pipelines.storage import file_sha256, read_json, value_sha256, write_json

AS_OF = datetime(2010, 12, 1, tzinfo=UTC)
STRENGTHS = {str(EventType.PURCHASE_COMPLETE): 1.0, str(EventType.ADD_TO_CART): 0.3, "detail-page-view": 0.1}
CATEGORIES = ("Garden > Tools > Spades", "Garden > Plants", "Kitchen > Cups|Gifts", "Kitchen > Plates")
COLORS = ("red", "Red", "blue", "green")
NAMING = ("title", "brand", "category")
DIMENSION = 64
NEIGHBOURS = 50


def make(folder: Path, *, n_items: int = 60, n_users: int = 20, rows_a_user: int = 30, seed: int = 7) -> Path:
    """Write a bundle with items ``i0000``…, users ``u000``…; returns its folder.

    Four members recommend under weighted fusion, a fifth searches: what is called ``Thing i0000``, of three brands.
    """
    rng = np.random.default_rng(seed)
    state = _state(rng, n_items=n_items, n_users=n_users, rows_a_user=rows_a_user)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "features").mkdir(parents=True)
    state.save(folder / "features")
    members = {
        "popularity": Popularity(np.asarray(state.items["bought_last28"], np.float32)),
        "repeat": Repeat(_unit_range(state.items["bought_last28"]), "bought_decay90"),
        "item_knn": ItemKnn(_neighbours(rng, n_items)),
        "two_tower": _towers(rng, n_items),
        "bm25": bm25.fit(bm25.Bm25Config(), TrainingData(state), seed=0),
    }
    for name, member in members.items():
        (folder / "members" / name).mkdir(parents=True)
        member.save(folder / "members" / name)
    weights = {"popularity": 0.2, "repeat": 1.0, "item_knn": 0.6, "two_tower": 0.4}
    surfaces = {}
    for surface in ("recommend", "recommend_new"):
        (folder / "fusion" / surface).mkdir(parents=True)
        Weighted(weights).save(folder / "fusion" / surface)
        surfaces[surface] = {"fuser": "weighted", "depth": 150}
    (folder / "fusion" / "search").mkdir(parents=True)
    Convex({"bm25": 1.0}, 0.0).save(folder / "fusion" / "search")
    surfaces["search"] = {"fuser": "convex", "depth": 150}
    Prepared.of(state, searched=True).save(folder / PREPARED)
    described = {name: {"kind": name, "applicable": True, "reason": None} for name in members}
    write_manifest(folder, {"members": described, "surfaces": surfaces, "as_of": AS_OF.isoformat()})
    return folder


def write_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Hash the files and write the manifest around ``about``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "parent": "0" * 16,
        "recipe": {"id": "made"},
        "data": {"snapshot": "made"},
        **about,
        "files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    }
    manifest["id"] = value_sha256(manifest)[:16]
    write_json(folder / MANIFEST, manifest)


def _state(rng: np.random.Generator, *, n_items: int, n_users: int, rows_a_user: int) -> FeatureState:
    item_ids = IdIndex.of(f"i{n:04d}" for n in range(n_items))
    user_ids = IdIndex.of(f"u{n:03d}" for n in range(n_users))
    n_rows = n_users * rows_a_user
    users = np.repeat(np.arange(n_users), rows_a_user)
    items = (n_items * rng.random(n_rows) ** 2).astype(np.int64)
    price = np.round(1 + 20 * rng.random(n_items), 2)
    quantity = rng.integers(1, 5, n_rows).astype(np.float64)
    columns = {
        "age": np.ceil(300 * rng.random(n_rows)),
        "strength": np.ones(n_rows),
        "target": np.ones(n_rows),
        "known_target": np.ones(n_rows),
        "event_share": np.full(n_rows, 0.2),
        "quantity": quantity,
        "spend": quantity * price[items],
    }
    pairs, place = np.unique(np.stack([users, items]), axis=1, return_inverse=True)
    pair_aggregates = _folded(USER_ITEM, columns, place.ravel(), pairs.shape[1])
    order = np.lexsort((pairs[1], pair_aggregates["last_age"], pairs[0]))
    pointer = np.searchsorted(pairs[0], np.arange(n_users + 1))
    buyers = np.bincount(pairs[1], minlength=n_items).astype(np.float32)
    catalog = _catalog(item_ids.ids(), price)
    return FeatureState(
        time=AS_OF,
        item_ids=item_ids,
        user_ids=user_ids,
        catalog=catalog,
        items={
            **_folded(ITEM, columns, items, n_items),
            "buyers": buyers,
            "repeat_buyers": np.zeros(n_items, np.float32),
            "new_buyers": buyers,
            "price": price.astype(np.float32),
        },
        users=_folded(USER, columns, users, n_users),
        user_items=UserItems(
            pointer.astype(np.int64),
            pairs[1][order].astype(np.int32),
            {name: values[order] for name, values in pair_aggregates.items()},
        ),
        attribute_values={},
        user_attributes={},
        text=_unit_rows(rng, n_items).astype(np.float16),
        target=str(EventType.PURCHASE_COMPLETE),
        strengths=STRENGTHS,
        words=spelling.counted(written(catalog, NAMING), {}),
        phrases=phrases.counted(catalog["title"].to_pylist()),
    )


def _folded(
    aggregates: Sequence[Aggregate], columns: dict[str, np.ndarray], groups: np.ndarray, n: int
) -> dict[str, np.ndarray]:
    return {a.name: fold(a, columns, groups, n).astype(np.float32) for a in aggregates}


def _catalog(ids: Sequence[str], price: np.ndarray) -> pa.Table:
    n = len(ids)
    values: dict[str, list[Any]] = {
        "item_id": list(ids),
        "title": [f"Thing {one}" for one in ids],
        "description": [None] * n,
        "brand": [f"brand{i % 3}" for i in range(n)],
        "category": [CATEGORIES[i % len(CATEGORIES)] for i in range(n)],
        "price": price.tolist(),
        "currency": ["GBP"] * n,
        "available": [i % 10 != 9 for i in range(n)],
        "image_uri": [None] * n,
        "attributes": [json.dumps({"color": COLORS[i % 4], "size": i % 2}) if i % 5 else None for i in range(n)],
        "updated_at": [AS_OF] * n,
    }
    return pa.table(values, schema=CATALOG.schema)


def _unit_range(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / max(1.0, float(values.max(initial=0.0))), np.float32)


def _unit_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = rng.normal(size=(n, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _neighbours(rng: np.random.Generator, n_items: int) -> Neighbours:
    kept = min(NEIGHBOURS, n_items - 1)
    rows = []
    for item in range(n_items):
        others = (item + 1 + rng.choice(n_items - 1, kept, replace=False)) % n_items
        rows.append((others, np.sort(rng.random(kept))[::-1]))
    return Neighbours.of(rows)


def _towers(rng: np.random.Generator, n_items: int) -> FittedTwoTower:
    arrays = {
        "vectors": _unit_rows(rng, n_items),
        "bias": (0.1 * rng.normal(size=n_items)).astype(np.float32),
        "user": np.eye(DIMENSION, dtype=np.float32),
        "user_bias": np.zeros(DIMENSION, np.float32),
    }
    return FittedTwoTower(arrays, history_items=50, decay="strength_decay90")


def enlarge(source: Path, target: Path, *, n_items: int) -> Path:
    """A bundle of at least ``n_items`` that recommends: the catalogue of ``source`` over and over, users spread.

    Item ids get the number of their copy in front. Every array over items is repeated, neighbour lists
    point within their copy, and the members, the fusion and the users' histories stay as long as they were.
    """
    features = FeatureState.load(source / "features")
    n, copies = features.n_items, -(-n_items // features.n_items)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    larger = _larger_state(features, copies)
    larger.save(_folder(target / "features"))
    Prepared.of(larger, searched=False).save(target / PREPARED)
    manifest = read_json(source / MANIFEST)
    kinds = {name: about["kind"] for name, about in manifest["members"].items()}
    kept = model_registry.speaking(kinds, Surface.RECOMMEND)
    shutil.copytree(source / "fusion", target / "fusion", ignore=shutil.ignore_patterns(str(Surface.SEARCH)))
    files = [path for name in kept for path in [source / "members" / name, *(source / "members" / name).rglob("*")]]
    for path in sorted(path for path in files if path.exists()):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".npy":
            np.save(copy, _larger(path, n, copies))
        else:
            shutil.copyfile(path, copy)
    manifest["members"] = {name: manifest["members"][name] for name in kept}
    manifest["surfaces"].pop(str(Surface.SEARCH), None)
    write_manifest(target, {k: v for k, v in manifest.items() if k not in ("id", "files")})
    return target


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _larger(path: Path, n: int, copies: int) -> np.ndarray:
    array = np.asarray(read_array(path))
    row_lists = (path.parent / "pointer.npy").exists()
    if row_lists and path.stem == "pointer":
        starts = array[-1] * np.arange(copies, dtype=array.dtype)
        return np.concatenate([*(array[:-1] + start for start in starts), array[-1:] * copies])
    if row_lists and path.stem == "items":
        return np.concatenate([array + np.asarray(copy * n, array.dtype) for copy in range(copies)])
    if row_lists or (array.ndim and array.shape[0] == n):
        return np.concatenate([array] * copies)
    return array


def _larger_state(state: FeatureState, copies: int) -> FeatureState:
    n, old = state.n_items, state.item_ids.ids()
    ids = [f"{copy:04d}-{one}" for copy in range(copies) for one in old]
    catalog = pa.concat_tables([state.catalog] * copies).combine_chunks()
    catalog = catalog.set_column(catalog.schema.get_field_index("item_id"), "item_id", pa.array(ids))
    items = np.asarray(state.user_items.items) + n * (state.user_items.users % copies)
    return FeatureState(
        time=state.time,
        item_ids=IdIndex.of(ids),
        user_ids=state.user_ids,
        catalog=catalog,
        items={name: np.tile(values, copies) for name, values in state.items.items()},
        users=state.users,
        user_items=UserItems(state.user_items.pointer, items.astype(np.int32), state.user_items.aggregates),
        attribute_values=state.attribute_values,
        user_attributes=state.user_attributes,
        text=None if state.text is None else np.concatenate([state.text] * copies),
        target=state.target,
        strengths=state.strengths,
    )
