"""Build the feature state of every instant before the holdout, or of the one that serves."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pipelines.features import history
from pipelines.stages.running import run, stage_parser
from pipelines.storage import read_json, replacing_folder
from pipelines.text_encoding import language
from pipelines.text_encoding import load as load_text
from pipelines.workspace import JUDGED, SERVED, Workspace


def main() -> None:
    """Write ``artifacts/features/<instant>/``, or with ``--served`` ``artifacts/features_served/``."""
    parser = stage_parser("Build the feature state of every instant.")
    parser.add_argument("--served", action="store_true", help="the instant that serves (t3) instead of those before it")
    told = parser.parse_args()
    work = Workspace(told.artifacts)
    texts = work.text(served=told.served)
    text, spoken = load_text(texts), language(texts)
    tables = work.current if told.served else work.history
    about = read_json(tables / "about.json")
    with replacing_folder(work.features(SERVED) if told.served else work.root / "features") as folder:
        for name, time in about["instants"].items():
            target, strengths = about["target"], about["strengths"]
            state = history.build(
                tables,
                datetime.fromisoformat(time),
                target=target,
                strengths=strengths,
                text=text,
                language=spoken,
                suggesting=name in {JUDGED, SERVED},
            )
            into: Path = folder if told.served else folder / name
            into.mkdir(exist_ok=True)
            state.save(into)
            print(
                f"{name}: {state.n_items} items, {state.n_users} users, {len(state.user_items.items)} pairs", flush=True
            )


if __name__ == "__main__":
    run(main)
