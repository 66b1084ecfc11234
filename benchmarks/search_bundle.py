"""A bundle that searches, made of products by the product's own code, with the time and size of each part.

The steps are those of the stages ``encode``, ``features``, ``train``, ``fuse`` and ``assemble`` for a shop that has a
catalogue and nothing else, with the settings of the checkout's ``params.yaml``.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.made_bundle import write_manifest
from pipelines import model_registry, text_encoding
from pipelines.adapters import distiller, query_encoder
from pipelines.adapters.encoder import TextEncoder
from pipelines.contracts import CATALOG, DEFAULT_STRENGTH, INTERACTIONS, TARGET_ORDER, USERS, Surface
from pipelines.errors import ArtifactError
from pipelines.features import history
from pipelines.features.state import FeatureState
from pipelines.fusion import learning
from pipelines.model_api import TrainingData
from pipelines.params import AllParams
from pipelines.prepared import FOLDER as PREPARED
from pipelines.prepared import Prepared
from pipelines.search.encoding import ENCODER
from pipelines.text_encoding import TextVectors, VectorCache, item_text, text_key

AS_OF = datetime(2022, 7, 1, tzinfo=UTC)
"""After the catalogue was published."""


@dataclass
class Built:
    """What was made: ``seconds`` and ``megabytes`` by part; a member's size is that of its folder."""

    bundle: Path
    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note how long a part takes."""
        began = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - began, 2)

    def weigh(self, part: str, folder: Path) -> None:
        """Note how large a folder is."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.megabytes[part] = round(size / 1e6, 1)


def build(
    products: Sequence[Mapping[str, Any]], into: Path, params: AllParams, *, cache: Path, say: Callable[[str], None]
) -> Built:
    """Make a bundle.

    Args:
        products: columns of ``contracts.CATALOG``; what is missing is null.
        into: the bundle's folder, replaced.
        params: members that search, their settings, the encoder.
        cache: folder of text vectors, used again by the next call.
        say: called with a line of progress.
    """
    shutil.rmtree(into, ignore_errors=True)
    built = Built(into)
    tables = _tables(into.with_name(f"{into.name}-tables"), products)
    text = _encoded(products, params, into / ENCODER, cache, built)
    say("features")
    with built.timed("features"):
        target, strengths, language = str(TARGET_ORDER[0]), dict(DEFAULT_STRENGTH), params.text.language
        state = history.build(tables, AS_OF, target=target, strengths=strengths, text=text, language=language)
        (into / "features").mkdir(parents=True)
        state.save(into / "features")
    built.weigh("features", into / "features")
    with built.timed("attributes and suggestions"):
        Prepared.of(state, searched=True).save(into / PREPARED)
    built.weigh("attributes and suggestions", into / PREPARED)
    members = _members(state, params, built, say)
    _pack(into, members, params)
    built.weigh("bundle", into)
    return built


def _tables(folder: Path, products: Sequence[Mapping[str, Any]]) -> Path:
    """The canonical tables of a shop without events."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = pa.Table.from_pylist([{"available": True, **one} for one in products], schema=CATALOG.schema)
    for contract, table in ((CATALOG, catalog), (INTERACTIONS, None), (USERS, None)):
        pq.write_table(table or contract.schema.empty_table(), folder / f"{contract.name}.parquet")
    return folder


def _encoded(
    products: Sequence[Mapping[str, Any]], params: AllParams, into: Path, cache: Path, built: Built
) -> TextVectors | None:
    """Vectors of the products' texts; the encoder of queries goes into the bundle."""
    if params.text.encoder is None:
        return None
    encoder = TextEncoder.of(params.text)
    texts = [item_text(one["title"], one["brand"], one["category"]) for one in products]
    with built.timed("vectors, unless kept from an earlier run"):
        vectors = text_encoding.encode(filter(None, texts), VectorCache(cache / encoder.fingerprint()), encoder.fill)
    titles, descriptions = ([one.get(name) for one in products] for name in ("title", "description"))
    shop = distiller.Shop(titles, descriptions, vectors.lookup([text_key(text) for text in texts]))
    with built.timed("encoder of queries"), tempfile.TemporaryDirectory() as aside:
        made, report = query_encoder.chosen(shop, texts, params, Path(aside), caches=cache)
        if made is None:
            raise ArtifactError(
                f"{params.text.encoder} cannot encode queries", found=report["reason"], do="name another --encoder"
            )
        shutil.copytree(made, into)
    built.weigh("encoder of queries", into)
    return vectors


def _members(
    state: FeatureState, params: AllParams, built: Built, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Fit and save the members that search; returns their entries of the manifest."""
    kinds = {name: entry.kind for name, entry in params.models.items()}
    found = {}
    for name in model_registry.speaking(kinds, Surface.SEARCH):
        kind, entry = model_registry.kind(kinds[name]), params.models[name]
        if kind.not_applicable(state):
            continue
        say(f"member {name}")
        folder = built.bundle / "members" / name
        folder.mkdir(parents=True)
        with built.timed(name):
            kind.fit(model_registry.config(name, entry), TrainingData(state), seed=params.seed).save(folder)
        built.weigh(name, folder)
        found[name] = {"kind": kinds[name], "applicable": True, "reason": None}
    return found


def _pack(bundle: Path, members: dict[str, dict[str, Any]], params: AllParams) -> None:
    """The fusion of a shop without labels, and the manifest."""
    choice = learning.choose(params.fusion, [], list(members), surface=Surface.SEARCH, windows=[], seed=params.seed)
    folder = bundle / "fusion" / Surface.SEARCH
    folder.mkdir(parents=True)
    choice.fuser.save(folder)
    surfaces = {str(Surface.SEARCH): {"fuser": choice.method, "depth": params.fusion.candidates_per_member}}
    write_manifest(bundle, {"members": members, "surfaces": surfaces, "as_of": AS_OF.isoformat()})
