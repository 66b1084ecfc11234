"""Stage ``encode``: a vector for every distinct item text of the catalogue, and the encoder as the service runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from pipelines import params, text_encoding
from pipelines.adapters import onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.search.encoding import ENCODER
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder, write_json
from pipelines.text_encoding import VectorCache, item_text, text_key
from pipelines.workspace import Workspace

PROBES = 100
"""Item texts on which the exported encoder is compared with the one that made their vectors."""


def main(argv: list[str] | None = None) -> None:
    """Read ``canonical/catalog.parquet``, write ``text/`` and ``query_encoder/``."""
    given = arguments("Encode item texts into artifacts/text.", argv)
    work = Workspace(given.artifacts)
    settings = params.load(given.params).text
    if settings.encoder is None:
        with replacing_folder(work.text) as folder:
            text_encoding.save(folder, None, {"encoder": None, "language": settings.language})
        write_query_encoder(work, None, "text.encoder is null")
        return
    encoder = TextEncoder(settings.encoder, settings.max_tokens, settings.batch_size)
    fingerprint = encoder.fingerprint()
    cache = VectorCache(Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache" / fingerprint)
    rows = pq.read_table(given.artifacts / "canonical" / "catalog.parquet", columns=["title", "brand", "category"])
    texts = [text for row in rows.to_pylist() if (text := item_text(*row.values()))]
    vectors = text_encoding.encode(texts, cache, encoder.fill)
    with replacing_folder(work.text) as folder:
        about = {"encoder": settings.encoder, "fingerprint": fingerprint, "max_tokens": settings.max_tokens}
        text_encoding.save(folder, vectors, about | {"language": settings.language})
    source = Path(encoder.source)
    if (reason := onnx_export.exportable(source)) is not None:
        write_query_encoder(work, None, reason)
        return
    probes = sorted(set(texts))[:: max(1, len(texts) // PROBES)]
    known = vectors.lookup([text_key(text) for text in probes])
    with tempfile.TemporaryDirectory() as aside:
        made = Path(aside) / ENCODER
        found = onnx_export.export(source, made, max_tokens=settings.max_tokens, probes=probes, vectors=known)
        write_query_encoder(work, made, None)
    print(f"encoder of queries: {found['precision']}, cosine with item vectors at least {found['least_cosine']}")


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
