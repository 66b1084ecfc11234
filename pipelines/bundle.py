"""The thing that is judged, shipped and served: features, members and fusion as of one instant.

A ranking depends on the request and the history alone: no clock, no network, no global state. So what
evaluation measures is what the service answers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipelines import explanation, model_registry, rescue
from pipelines.arrays import same_files_once
from pipelines.catalogue import Catalogue
from pipelines.contracts import Surface
from pipelines.errors import ArtifactError
from pipelines.exploration import POOL, explore, swap_one
from pipelines.features.lookup import LiveEvent, update
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import SEARCHED, CandidateList, gather, opinions
from pipelines.fusion.features import item_table, parts
from pipelines.fusion.fuser import FittedFuser
from pipelines.fusion.quality import ordered
from pipelines.fusion.query_features import feedback_part, query_part
from pipelines.fusion.shortlist import one_after_the_other, shortlist
from pipelines.fusion.spread import SOLD, demand, spread
from pipelines.fusion.surface import SurfaceFusion, load_fusion
from pipelines.kept_orders import KeptOrders
from pipelines.manifest import MANIFEST, check_files
from pipelines.model_api import Context, FittedModel, first_allowed
from pipelines.prepared import FOLDER, Prepared
from pipelines.query_reader import QueryReader
from pipelines.ranking import Filter, RankedItem, Ranking, RankRequest, Source
from pipelines.search.encoding import ENCODER, QueryEncoder
from pipelines.search.labels import fold_of
from pipelines.search.query import Query
from pipelines.storage import file_sha256, read_json, value_sha256
from pipelines.workspace import Workspace

SIMILAR_MEMBERS = {"item_knn": None, "two_tower": None, "ease": None, "text": "text_only", "tuned_text": "text_only"}
"""Kinds asked for similar items, in this order of trust, with what an answer of theirs is reported as."""


class Bundle:
    """A bundle in memory; read-only, thread-safe."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        features: FeatureState,
        members: Mapping[str, FittedModel],
        fusion: Mapping[Surface, SurfaceFusion],
        encoder: QueryEncoder | None = None,
        *,
        orders: KeptOrders | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        """Put parts together; ``members`` are those that apply, in the order of the manifest."""
        self.encoder = encoder
        self.manifest = dict(manifest)
        self.features = features
        self.members = dict(members)
        self.fusion = dict(fusion)
        self.catalogue = Catalogue(features, prepared and prepared.attributes)
        self.reader = QueryReader(features, self.catalogue, encoder, prepared and prepared.beginnings)
        self._orders = orders or KeptOrders()

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True, orders: Path | None = None) -> Self:
        """Read a bundle, memory-mapped.

        Args:
            folder: where it lies.
            verify: compare every file with the manifest's SHA-256 first.
            orders: folder in which processes keep the orders of recent searches for one another; None: each its own.

        Raises:
            ArtifactError: when it is missing, incomplete or damaged; names the file.
        """
        if not (folder / MANIFEST).exists():
            raise ArtifactError(
                f"{folder} holds no bundle", wanted=MANIFEST, do="run `dvc repro`, or name another folder"
            )
        manifest = read_json(folder / MANIFEST)
        if verify:
            check_files(folder, manifest)
        with same_files_once(folder, manifest.get("files", {})):
            features = FeatureState.load(folder / "features")
            members = {
                name: model_registry.kind(entry["kind"]).fitted.load(folder / "members" / name)
                for name, entry in manifest["members"].items()
                if entry["applicable"]
            }
        fusion = {Surface(s): load_fusion(folder / "fusion" / s, about) for s, about in manifest["surfaces"].items()}
        kept = KeptOrders(bundle=str(manifest["id"]), folder=orders)
        encoder, prepared = QueryEncoder.load(folder / ENCODER), Prepared.load(folder / FOLDER)
        return cls(manifest, features, members, fusion, encoder, orders=kept, prepared=prepared)

    @property
    def id(self) -> str:
        """Hash of the content, 16 hex digits."""
        return str(self.manifest["id"])

    @property
    def content(self) -> str | None:
        """Hash of what a ranking reads, beside code, request and history; None where the files are not known."""
        if "files" not in self.manifest:
            return None
        # what lies beside the folders is for people and for a refit
        read = {name: digest for name, digest in self.manifest["files"].items() if "/" in name}
        return str(value_sha256([read, sorted(self.members)]))

    @property
    def as_of(self) -> datetime:
        """The instant that the bundle knows everything before."""
        return self.features.time

    def without(self, member: str) -> Bundle:
        """The same bundle with one member gone, as when it fails while serving."""
        return self._with({name: fitted for name, fitted in self.members.items() if name != member}, self.fusion)

    def judging(self, query: str) -> Bundle:
        """The same bundle with the members and the fusion of a search that were learned without this query."""
        fold, fusion = fold_of(query), dict(self.fusion)
        if Surface.SEARCH in fusion:
            search = fusion[Surface.SEARCH]
            fusion[Surface.SEARCH] = search.folds.get(fold, search)
        return self._with({name: member.judging(fold) for name, member in self.members.items()}, fusion)

    def _with(self, members: dict[str, FittedModel], fusion: dict[Surface, SurfaceFusion]) -> Bundle:
        """The same data in other hands, of whose answers nothing is kept yet."""
        found = copy(self)
        vars(found).update(members=members, fusion=fusion, _orders=KeptOrders())
        vars(found).pop("_speaking", None)
        return found

    def history(
        self,
        *,
        user_id: str | None = None,
        visitor_id: str | None = None,
        events: Sequence[LiveEvent] = (),
        recent_items: Sequence[str] = (),
    ) -> UserHistory:
        """A user's (else a visitor's) history, carried on by what happened since.

        Args:
            user_id: who.
            visitor_id: who, when the user is not known or has no history here.
            events: posted since the bundle was made, oldest first.
            recent_items: ids the caller knows the user looked at, oldest first; they count as the weakest
                positive event type, at age 0.
        """
        code = -1
        for known in (user_id, visitor_id):
            if code < 0 and known is not None:
                code = self.features.user_ids.code(known)
        live = list(events)
        if recent_items and self.features.strengths:
            weakest = min(self.features.strengths, key=lambda name: self.features.strengths[name])
            live += [LiveEvent(item, weakest, self.as_of) for item in recent_items]
        return update(self.features, self.features.history(code), live)

    def on(self, surface: Surface) -> dict[str, FittedModel]:
        """The members that have something to say on a surface."""
        return {name: self.members[name] for name in self._speaking.get(surface, ())}

    @functools.cached_property
    def _speaking(self) -> dict[Surface, list[str]]:
        kinds = {name: self.manifest["members"][name]["kind"] for name in self.members}
        return {surface: model_registry.speaking(kinds, surface) for surface in Surface}

    def query(self, text: str) -> Query:
        """What was typed, as members read it."""
        return self.reader.read(text)

    def rank(self, request: RankRequest, history: UserHistory) -> Ranking:
        """The list for a request.

        Args:
            request: what is asked.
            history: of :meth:`history`.

        Returns:
            At most ``request.n`` items from place ``offset + 1`` on, fewer when no more are allowed.
        """
        if request.surface is Surface.SEARCH:
            return self._search(request, history)
        context = Context(history, request.surface)
        allowed = self.allowed(request, history)
        wanted = request.offset + request.n + POOL
        order, scores, fused, fallback = self._fused_order(context, allowed, wanted)
        if len(order) < request.offset + request.n:
            fill = self._popular(allowed, wanted, exclude=order)
            order, scores = np.concatenate([order, fill]), np.concatenate([scores, np.zeros(len(fill), np.float32)])
        page = order[request.offset :].tolist()
        if request.explore and request.offset == 0:
            shown, chances = explore(page, request.n, seed=request.seed)
        else:
            shown, chances = page[: request.n], [1.0] * len(page[: request.n])
        places = list(zip(shown, chances, strict=True))
        score_of = dict(zip(order.tolist(), scores.tolist(), strict=True))
        return Ranking(self._items_of(request, context, places, score_of, fused), fallback)

    def _search(self, request: RankRequest, history: UserHistory) -> Ranking:
        """The list for a query: pages of one order, which no page repeats or skips an item of."""
        found = self._searched(request, history) if len(history) or request.exclude or request.explain else None
        if found is not None:
            order = found.order
        else:  # who has no history gets what all others without one get
            typed = request.query or ""
            order = self._orders.get(typed, request.filter, lambda: self._searched(request, history).order)
        total = len(order.codes)
        rows, chances = swap_one(total, seed=request.seed) if request.explore else ([], [])
        page = range(request.offset, min(request.offset + request.n, total))
        shown = [rows[place] if place < len(rows) else place for place in page]
        codes = order.codes[shown].tolist()
        places = [(code, chances[at] if at < len(chances) else 1.0) for code, at in zip(codes, page, strict=True)]
        score_of = dict(zip(codes, order.scores[shown].tolist(), strict=True))
        said = None if found is None else found.candidates
        return Ranking(
            self._items_of(request, Context(history, request.surface), places, score_of, said),
            order.fallback,
            total=total,
            facets=self.catalogue.facets(order.codes, request.facets),
            rewritten_query=order.rewritten,
            understood=found.query.understood() if found is not None and request.explain else {},
        )

    def _searched(self, request: RankRequest, history: UserHistory) -> rescue.Found:
        """All that a search finds, best first."""
        shop = rescue.Shop(partial(self._find, history), self.reader.relaxed, self.catalogue)
        unfiltered = self.catalogue.passing(Filter(available=request.filter.available))
        asked, allowed = self.query(request.query or ""), self.allowed(request, history)
        return rescue.searched(shop, asked, allowed=allowed, unfiltered=unfiltered)

    def _find(self, history: UserHistory, query: Query, allowed: np.ndarray | None) -> rescue.Found:
        """What members and fusion find for a query; where no member goes by words, meaning counts as such."""
        context = Context(history, Surface.SEARCH, query)
        codes, scores, candidates, fallback = self._fused_order(context, allowed, SEARCHED)
        worded = False
        if candidates is not None:
            by_words = [place for place, name in enumerate(candidates.members) if not self.members[name].by_meaning]
            asked = by_words or range(len(candidates.members))
            worded = any(not np.isnan(candidates.scores[:, place]).all() for place in asked)
        return rescue.Found(query, codes, scores, candidates, worded, fallback)

    def _items_of(
        self,
        request: RankRequest,
        context: Context,
        places: Sequence[tuple[int, float]],
        score_of: Mapping[int, float],
        fused: CandidateList | None,
    ) -> tuple[RankedItem, ...]:
        """Items of a page from their codes and chances."""
        sources: dict[int, tuple[Source, ...]] = {}
        bounded = frozenset[str]()
        if request.explain and fused is not None:
            bounded = fused.bounded
            sources = explanation.sources(fused, self.fusion[request.surface].fuser.weights(fused.members, bounded))
        return tuple(
            RankedItem(
                id=self.features.item_ids[code],
                code=code,
                rank=place,
                score=score_of[code],
                propensity=chance,
                sources=(said := sources.get(code, ())),
                reasons=explanation.reasons(code, context.history, said, bounded=bounded) if request.explain else (),
            )
            for place, (code, chance) in enumerate(places, request.offset + 1)
        )

    def score_items(
        self,
        item_ids: Sequence[str],
        history: UserHistory,
        surface: Surface = Surface.RECOMMEND,
        *,
        query: str | None = None,
    ) -> list[float | None]:
        """The fused score of given items, None for unknown ones; ``query`` on ``SEARCH`` alone."""
        codes = self.features.item_ids.codes(item_ids)
        known = np.unique(codes[codes >= 0])
        if not len(known):
            return [None] * len(item_ids)
        context = Context(history, surface, None if query is None else self.query(query))
        members = self.on(surface)
        if self._speechless(context) or surface not in self.fusion or not members:
            values = self.features.items["bought_decay30"][known]
        else:
            values = self._score(opinions(members, context, known), surface)
        by_code = dict(zip(known.tolist(), np.maximum(values, np.finfo(np.float32).min).tolist(), strict=True))
        return [by_code.get(code) for code in codes.tolist()]

    def similar(self, item_id: str, n: int, filter_: Filter = Filter()) -> Ranking:  # noqa: B008 - frozen
        """Items like one item; an unknown item gives what sells now, and says so."""
        code = self.features.item_ids.code(item_id)
        allowed = self.catalogue.passing(filter_)
        if code < 0:
            return self._plain(self._popular(allowed, n), None, "unknown_item")
        kinds = {name: self.manifest["members"][name]["kind"] for name in self.members}
        for kind, fallback in SIMILAR_MEMBERS.items():
            for name in self.members:
                found = self.members[name].similar(code, n + int((~allowed).sum())) if kinds[name] == kind else None
                if found is not None and len(found.codes):
                    keep = np.flatnonzero(allowed[found.codes])[:n]
                    return self._plain(found.codes[keep], found.scores[keep], fallback)
        allowed = allowed.copy()
        allowed[code] = False
        return self._plain(self._popular(allowed, n), None, "no_similar_items")

    def allowed(self, request: RankRequest, history: UserHistory) -> np.ndarray:
        """Which items may appear, bool ``[n_items]``, not to be changed."""
        mask = self.catalogue.passing(request.filter)
        if not request.exclude and request.surface != Surface.RECOMMEND_NEW:
            return mask
        mask = mask.copy()
        for item in request.exclude:
            code = self.features.item_ids.code(item)
            if code >= 0:
                mask[code] = False
        if request.surface == Surface.RECOMMEND_NEW:
            mask[history.seen] = False
        return mask

    def _fused_order(
        self, context: Context, allowed: np.ndarray | None, wanted: int
    ) -> tuple[np.ndarray, np.ndarray, CandidateList | None, str | None]:
        surface = Surface(context.surface)
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32), None)
        members = self.on(surface)
        if surface not in self.fusion or not members:
            return *nothing, "no_members"
        if self._speechless(context):
            return *nothing, "unknown_user" if context.query is None else "empty_query"
        depth = max(self.fusion[surface].depth, wanted)
        if allowed is not None and self.catalogue.all_of(allowed):
            allowed = None  # members have less to look up
        candidates = gather(members, context, depth=depth, allowed=allowed)
        scores = self._score(candidates, surface)
        order = ordered(scores, candidates.codes)
        codes, scores = candidates.codes[order], scores[order]
        if len(scores) and not scores[-1] > -np.inf:  # the last, so where it may be shown all may
            codes, scores = codes[shown := scores > -np.inf], scores[shown]
        return codes, scores, candidates, None

    def _speechless(self, context: Context) -> bool:
        """Whether there is nothing to go by: no history, and where something is asked, no word in the question."""
        if context.query is not None:
            return not context.query.terms and context.query.vector is None
        return len(context.history) == 0

    def _score(self, candidates: CandidateList, surface: Surface) -> np.ndarray:
        fusion = self.fusion[surface]
        if fusion.first is None:
            scores = self._scored_by(fusion.fuser, candidates, surface)
            return spread(scores, self._demand[candidates.codes], fusion.spread) if fusion.spread else scores
        first = self._scored_by(fusion.first, candidates, surface)
        rows = shortlist(first, candidates.codes)
        then = self._scored_by(fusion.fuser, candidates.keep(rows), surface, first[rows])
        return one_after_the_other(then, first, rows)

    def _scored_by(
        self, fuser: FittedFuser, candidates: CandidateList, surface: Surface, first: np.ndarray | None = None
    ) -> np.ndarray:
        if not fuser.reads_features:
            return fuser.score(candidates, None)
        if surface == Surface.SEARCH and fuser.reads_feedback_alone:
            return fuser.score_parts(candidates, (feedback_part(self.features, candidates),))
        asked = (query_part(self.features, candidates, first),) if surface == Surface.SEARCH else ()
        described = parts(self.features, candidates.context.history, candidates.codes, self._items)
        return fuser.score_parts(candidates, (*described, *asked))

    @functools.cached_property
    def _items(self) -> np.ndarray:
        """What the fusion reads of items alone; 68 bytes an item."""
        return item_table(self.features)

    @functools.cached_property
    def _demand(self) -> np.ndarray:
        """What sells anyway; 4 bytes an item."""
        return demand(self.features.items[SOLD])

    def _popular(self, allowed: np.ndarray, n: int, exclude: np.ndarray | None = None) -> np.ndarray:
        """What sells now, then the rest by code; int64, at most ``n``."""
        allowed = allowed.copy()
        if exclude is not None:
            allowed[exclude] = False
        return first_allowed(self.catalogue.best_selling, n, allowed)

    def _plain(self, codes: np.ndarray, scores: np.ndarray | None, fallback: str | None) -> Ranking:
        values = np.zeros(len(codes)) if scores is None else scores
        pairs = zip(codes.tolist(), values.tolist(), strict=True)
        items = (RankedItem(self.features.item_ids[c], c, place, s, 1.0) for place, (c, s) in enumerate(pairs, 1))
        return Ranking(tuple(items), fallback)


def at_instant(artifacts: Path, instant: str) -> Bundle:
    """The members of one instant under the shipped fusion, straight from a run's artifacts."""
    work = Workspace(artifacts)
    shipped = read_json(work.judged / MANIFEST)
    features = FeatureState.load(work.features(instant))
    members = {
        name: model_registry.fitted(entry["kind"], work.member(name, instant), n_items=features.n_items)
        for name, entry in shipped["members"].items()
        if entry["applicable"]
    }
    fusion = {Surface(s): load_fusion(work.fusion(Surface(s)), about) for s, about in shipped["surfaces"].items()}
    folders = [work.features(instant), *(work.member(name, instant) for name in members), work.root / "fusion"]
    files = [path for folder in [*folders, work.query_encoder] for path in folder.rglob("*") if path.is_file()]
    hashes = {path.relative_to(work.root).as_posix(): file_sha256(path) for path in files}
    about = {**shipped, "as_of": features.time.isoformat(), "instant": instant, "files": hashes}
    return Bundle(about, features, members, fusion, QueryEncoder.load(work.query_encoder))


def request_for(surface: Surface, n: int) -> RankRequest:
    """The request that evaluation sends: no exploration, no filter beyond availability."""
    return replace(RankRequest(), surface=surface, n=n)
