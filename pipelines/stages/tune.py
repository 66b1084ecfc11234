"""Tune the encoder of queries on what products are called and on labelled queries; keep it only if it is better."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from pipelines import params as parameters
from pipelines.adapters import onnx_export, tuner
from pipelines.adapters.encoder import TextEncoder
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.evaluation.bootstrap import difference
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion import fuser as fusers
from pipelines.fusion.candidates import SEARCHED
from pipelines.fusion.lists import labelled_queries
from pipelines.fusion.quality import ndcg_of
from pipelines.fusion.query_features import FIRST_SCORE
from pipelines.fusion.surface import SHORTLISTING
from pipelines.model_api import Context, FittedModel, TrainingData
from pipelines.models import bm25, text, tuned_text
from pipelines.params import AllParams, TuningParams
from pipelines.search.encoding import ENCODER, QueryEncoder
from pipelines.search.labels import FOLDS, LabelledQuery, drawn, fold_of
from pipelines.stages.running import run, stage_parser
from pipelines.storage import read_json, replacing_folder, write_json
from pipelines.tuning import saved
from pipelines.tuning.examples import Candidates, Lesson, candidates, pool, wordings
from pipelines.tuning.labels import every_label, labels_before
from pipelines.workspace import JUDGED, SERVED, Workspace

PROBES = 100
"""Queries on which the exported graph is compared with the network that was tuned."""

REPORT = "report.json"
WORDS, MEANING, TUNED = "bm25", "text", "tuned_text"
"""Members of the comparison."""


def main() -> None:
    """Write ``artifacts/tuned/<instant>/`` and a report, or with ``--served`` ``artifacts/tuned_served/``."""
    parser = stage_parser("Tune the encoder of queries.")
    parser.add_argument("--served", action="store_true", help="as of t3, if that of t2 was better than the untuned")
    told = parser.parse_args()
    params, work = parameters.load(told.params), Workspace(told.artifacts)
    tables = work.current if told.served else work.history
    times: dict[str, str] = read_json(tables / "about.json")["instants"]
    instants = sorted(times, key=times.__getitem__)
    reason = saved.reason(work.tuned(JUDGED)) if told.served else cannot(params, work)
    with replacing_folder(work.tuned(SERVED) if told.served else work.root / "tuned") as folder:
        for name in instants:
            (folder / ("." if told.served else name)).mkdir(exist_ok=True)
        if reason is None and told.served:
            labels = {SERVED: every_label(work, before_holdout=False)}
            Tuning(params, work, SERVED).write({SERVED: folder}, labels, folds=False)
        elif reason is None:
            tuning = Tuning(params, work, JUDGED)
            tuning.write({name: folder / name for name in instants}, labels_before(work, instants), folds=True)
            report = tuning.compared(folder / JUDGED, every_label(work, before_holdout=True))
            write_json(folder / REPORT, report)
            reason = report["reason"]
        if reason is not None:
            print(f"not applicable: {reason}", flush=True)
            for name in instants:
                drop(folder if told.served else folder / name, reason)
    tuner.forget(scratch())


def scratch() -> Path:
    """Where half-done work waits for a run that carries it on."""
    return Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "tuning"


def drop(folder: Path, reason: str) -> None:
    """Leave nothing in a folder but why there is no tuned encoder."""
    shutil.rmtree(folder)
    folder.mkdir()
    saved.write_none(folder, reason)


def cannot(params: AllParams, work: Workspace) -> str | None:
    """Why nothing can be tuned on these data with these settings, or None."""
    if not params.text.tuning.enabled:
        return "text.tuning.enabled is false"
    if params.text.encoder is None:
        return "text.encoder is null"
    source = Path(TextEncoder.of(params.text).source)
    if (found := onnx_export.exportable(source) if source.is_dir() else "the encoder is no folder") is not None:
        return found
    if FeatureState.load(work.features(JUDGED)).text is None:
        return "no item has a text"
    known, wanted = len(every_label(work, before_holdout=True)), params.text.tuning.min_queries
    return f"{known} labelled queries, fewer than {wanted} prove nothing" if known < wanted else None


@dataclass(frozen=True)
class Tuning:
    """The shop as of one instant, and how its encoder is tuned."""

    params: AllParams
    work: Workspace
    instant: str

    @property
    def settings(self) -> TuningParams:
        """Of the tuning."""
        return self.params.text.tuning

    @functools.cached_property
    def bundle(self) -> Bundle:
        """Words and untuned meaning, which find the hard negatives and are what the tuned encoder must add to."""
        features = FeatureState.load(self.work.features(self.instant))
        data, seed = TrainingData(features), self.params.seed
        members: dict[str, FittedModel] = {
            WORDS: bm25.fit(bm25.Bm25Config(), data, seed=seed),
            MEANING: text.fit(text.TextConfig(), data, seed=seed),
        }
        about = {"members": {name: {"kind": name} for name in members}}
        return Bundle(about, features, members, {}, QueryEncoder.load(self.work.query_encoder))

    def write(self, folders: Mapping[str, Path], labels: Mapping[str, Sequence[LabelledQuery]], *, folds: bool) -> None:
        """Tune a version for every instant, of the last also one for each part of the queries, and export them.

        Args:
            folders: existing ones, by instant in the order of time.
            labels: what each instant may know.
            folds: whether queries will be judged on what comes of it.
        """
        last = list(folders)[-1]
        known = {name: self.examples(found) for name, found in labels.items()}
        lessons = [Lesson(f"{name}-{saved.ALL}", list(found.values())) for name, found in known.items()]
        for fold in range(FOLDS if folds else 0):
            rest = [one for query, one in known[last].items() if fold_of(query) != fold]
            lessons.append(Lesson(f"{last}-{fold}", rest))
        probes = [one.text for one in known[last].values()][:: max(1, len(known[last]) // PROBES)]
        made = tuner.tune(self.order([one for one in lessons if one.queries], probes), scratch())
        first = made[tuner.FIRST]
        with tempfile.TemporaryDirectory() as aside:
            serving = made.get(f"{last}-{saved.ALL}", first)
            about = onnx_export.export(
                Path(TextEncoder.of(self.params.text).source),
                Path(aside) / ENCODER,
                max_tokens=self.params.text.max_tokens,
                probes=probes,
                vectors=serving.vectors,
                additions=serving.additions,
            )
            print(f"tuned encoder: {about['precision']}, cosine at least {about['least_cosine']}", flush=True)
            for name, folder in folders.items():
                names = [saved.ALL, *(str(fold) for fold in range(FOLDS) if folds and name == last)]
                versions = {one: made.get(f"{name}-{one}", first).additions for one in names}
                saved.write(folder, Path(aside) / ENCODER, versions, {"labels": len(labels[name])})

    def examples(self, labelled: Sequence[LabelledQuery]) -> dict[str, Candidates]:
        """By query what is told apart for it; a query without a known item worth anything is left out."""
        found, bundle = {}, self.bundle
        for one in drawn(labelled, self.settings.max_queries):
            codes = bundle.features.item_ids.codes(list(one.gains)).tolist()
            gains = {code: gain for code, gain in zip(codes, one.gains.values(), strict=True) if code >= 0}
            if max(gains.values(), default=0) <= 0:
                continue
            context = Context(UserHistory.empty(), Surface.SEARCH, query := bundle.query(one.query))
            results = [m.candidates(context, self.settings.negatives).codes for m in bundle.members.values()]
            found[one.query] = candidates(query.text, gains, results)
        return found

    def order(self, lessons: Sequence[Lesson], asked: Sequence[str]) -> tuner.Work:
        """What the child is asked to do; the wordings are of the catalogue at the first instant of the history."""
        features = self.bundle.features
        every = [one for lesson in lessons for one in lesson.queries]
        seed, encoder = self.params.seed, TextEncoder.of(self.params.text)
        rows = pool(features.n_items, every, most=self.settings.max_items, seed=seed)
        times: dict[str, str] = read_json(self.work.history / "about.json")["instants"]
        earliest = FeatureState.load(self.work.features(min(times, key=times.__getitem__)))
        known = np.intersect1d(features.item_ids.codes(earliest.item_ids.ids()), rows)
        known = known[known >= 0]
        assert features.text is not None  # noqa: S101 - `cannot` looked
        known = known[np.asarray(features.text[known]).any(axis=1)]
        titles = dict(zip(earliest.item_ids.ids(), earliest.catalog["title"].to_pylist(), strict=True))
        named = [titles.get(item) for item in features.item_ids.ids()]
        return tuner.Work(
            source=Path(encoder.source),
            fingerprint=encoder.fingerprint(),
            max_tokens=self.params.text.max_tokens,
            settings=self.settings,
            seed=seed,
            vectors=np.asarray(features.text),
            pool=rows,
            wordings=wordings(named, known, seed=seed),
            lessons=lessons,
            asked=asked,
        )

    def compared(self, tuned: Path, labelled: Sequence[LabelledQuery]) -> dict[str, Any]:
        """Tuned with untuned on labelled queries that the answering version did not learn from.

        Returns:
            ``ndcg@10`` of every system, the paired gain of the tuned one ``alone`` over the untuned, ``instead`` of it
            and ``beside`` it with words, and the ``reason`` not to keep it, or None: what counts is what it adds.
        """
        words, untuned = ({name: self.bundle.members[name]} for name in (WORDS, MEANING))
        features = replace(self.bundle.features, tuned=tuned)
        member = tuned_text.fit(tuned_text.TunedTextConfig(), TrainingData(features), seed=self.params.seed)
        queries = drawn(labelled, self.settings.max_queries)
        systems: dict[str, Mapping[str, FittedModel]] = {
            "untuned": untuned,
            "alone": {TUNED: member},
            "words and untuned": words | untuned,
            "instead": words | {TUNED: member},
            "beside": words | untuned | {TUNED: member},
        }
        reached = {name: self.reached(members, queries) for name, members in systems.items()}
        report: dict[str, Any] = {"ndcg@10": {name: round(float(found.mean()), 6) for name, found in reached.items()}}
        reason = None
        for name in ("alone", "instead", "beside"):
            base = "untuned" if name == "alone" else "words and untuned"
            gain = difference(reached[name], reached[base], seed=self.params.seed)
            assert gain is not None  # noqa: S101 - there are queries
            said = f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            print(f"tuned {name}: nDCG@10 {reached[name].mean():.4f}, {said} over {base}", flush=True)
            report[name] = gain.as_difference()
            if name == "beside" and gain.low <= 0:
                reason = f"not better beside words and untuned text on {gain.n} labelled queries: {said}"
        return report | {"reason": reason}

    def reached(self, members: Mapping[str, FittedModel], queries: Sequence[LabelledQuery]) -> np.ndarray:
        """nDCG@10 of each query, of members in equal shares; of several with the feedback that serves."""
        config = fusers.config(SHORTLISTING, {} if len(members) > 1 else {"feedback": 0.0})
        first = fusers.method(SHORTLISTING).fit(config, [], list(members), seed=self.params.seed)
        features, read = self.bundle.features, self.bundle.query
        lists = labelled_queries(features, members, queries, first=first, read=read, window=JUDGED, depth=SEARCHED)
        known = list(track(lists, description=f"nDCG@10 of {' + '.join(members)}", total=len(queries)))
        return ndcg_of([one.features[:, FIRST_SCORE] for one in known], known)


if __name__ == "__main__":
    run(main)
