"""Stage ``encode_queries``: the encoder of the item texts as the service runs it on queries."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines import params as parameters
from pipelines import text_encoding
from pipelines.adapters import distiller, query_encoder
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder, write_json
from pipelines.text_encoding import item_text, text_key
from pipelines.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Write ``query_encoder/``: the encoder, or why queries cannot be encoded; and how it was chosen."""
    given = arguments("Export the encoder of queries into artifacts/query_encoder.", argv)
    work, params = Workspace(given.artifacts), parameters.load(given.params)
    if params.text.encoder is None:
        _write(work, None, "text.encoder is null", {"reason": "text.encoder is null"})
        return
    shop, texts = _shop(work)
    with tempfile.TemporaryDirectory() as aside:
        caches = Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache"
        encoder, report = query_encoder.chosen(shop, texts, params, Path(aside), caches=caches)
        _tell(report)
        _write(work, encoder, report["reason"] if encoder is None else None, report)


def _tell(report: Mapping[str, Any]) -> None:
    """Say which encoder serves, and why."""
    if (exported := report.get("exported")) is None:
        return  # `_write` says why there is none
    print(f"encoder of queries: {exported['precision']}, cosine with item vectors at least {exported['least_cosine']}")
    if (reason := report["reason"]) is not None:
        print(f"queries are encoded by the network: {reason}")
        return
    reached, ms = report["ndcg@10"], report["ms"]
    print(
        f"queries are encoded by word: products are found at nDCG@10 {reached['words']} (by the network "
        f"{reached['network']}), in {ms['words']} ms ({ms['network']})"
    )


def _shop(work: Workspace) -> tuple[distiller.Shop, list[str]]:
    """The items known at t2, and the text of each that is encoded."""
    rows = pq.read_table(work.history / "catalog.parquet", columns=["title", "brand", "category", "description"])
    titles, brands, categories, descriptions = (column.to_pylist() for column in rows.columns)
    texts = [item_text(*row) for row in zip(titles, brands, categories, strict=True)]
    vectors = text_encoding.load(work.text(served=False))
    assert vectors is not None  # noqa: S101 - there is an encoder
    return distiller.Shop(titles, descriptions, vectors.lookup([text_key(text) for text in texts])), texts


def _write(work: Workspace, made: Path | None, reason: str | None, report: dict[str, Any]) -> None:
    if reason is not None:
        print(f"queries cannot be encoded while serving: {reason}")
    with replacing_folder(work.query_encoder.parent) as folder:
        if made is not None:
            shutil.copytree(made, folder / work.query_encoder.name)
        write_json(folder / "about.json", {"reason": reason})
    work.distillation.parent.mkdir(parents=True, exist_ok=True)
    write_json(work.distillation, report)


if __name__ == "__main__":
    run(main)
