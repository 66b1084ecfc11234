"""Stage ``encode``: vectors of the item texts known at t2 and at t3, and the encoder as the service runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines import params, text_encoding
from pipelines.adapters import onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.search.encoding import ENCODER
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder, write_json
from pipelines.text_encoding import TextVectors, VectorCache, item_text, text_key
from pipelines.workspace import Workspace

PROBES = 100
"""Item texts on which the exported encoder is compared with the one that made their vectors."""


def main(argv: list[str] | None = None) -> None:
    """Read the catalogues of ``split/``, write ``text/history/``, ``text/current/`` and ``query_encoder/``."""
    given = arguments("Encode item texts into artifacts/text.", argv)
    work = Workspace(given.artifacts)
    settings = params.load(given.params).text
    about: dict[str, Any] = {"encoder": settings.encoder, "language": settings.language}
    if settings.encoder is None:
        for served in (False, True):
            _save(work.text(served=served), None, about)
        write_query_encoder(work, None, "text.encoder is null")
        return
    encoder = TextEncoder(settings.encoder, settings.max_tokens, settings.batch_size)
    about |= {"fingerprint": encoder.fingerprint(), "max_tokens": settings.max_tokens}
    cache = VectorCache(Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache" / about["fingerprint"])
    before, now = _texts(work.history), _texts(work.current)
    vectors = text_encoding.encode(before | now, cache, encoder.fill)
    _save(work.text(served=False), vectors.of(text_key(text) for text in before), about)
    _save(work.text(served=True), vectors.of(text_key(text) for text in now), about)
    source = Path(encoder.source)
    if (reason := onnx_export.exportable(source)) is not None:
        write_query_encoder(work, None, reason)
        return
    probes = sorted(before)[:: max(1, len(before) // PROBES)]
    known = vectors.lookup([text_key(text) for text in probes])
    with tempfile.TemporaryDirectory() as aside:
        made = Path(aside) / ENCODER
        found = onnx_export.export(source, made, max_tokens=settings.max_tokens, probes=probes, vectors=known)
        write_query_encoder(work, made, None)
    print(f"encoder of queries: {found['precision']}, cosine with item vectors at least {found['least_cosine']}")


def _texts(tables: Path) -> set[str]:
    """Every text that an item of these tables has or had."""
    rows = pq.read_table(tables / "catalog.parquet", columns=["title", "brand", "category"])
    return {text for row in rows.to_pylist() if (text := item_text(*row.values()))}


def _save(folder: Path, vectors: TextVectors | None, about: dict[str, Any]) -> None:
    with replacing_folder(folder) as aside:
        text_encoding.save(aside, vectors, about)


def write_query_encoder(work: Workspace, made: Path | None, reason: str | None) -> None:
    """Put the exported encoder in its place, or say why there is none."""
    if reason is not None:
        print(f"queries cannot be encoded while serving: {reason}")
    with replacing_folder(work.query_encoder.parent) as folder:
        if made is not None:
            shutil.copytree(made, folder / work.query_encoder.name)
        write_json(folder / "about.json", {"reason": reason})


if __name__ == "__main__":
    run(main)
