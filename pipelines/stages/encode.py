"""Stage ``encode``: a vector for every distinct item text of the catalogue, and the encoder as the service runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq

from pipelines import params, text_encoding
from pipelines.adapters import onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.search.encoding import ENCODER
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder
from pipelines.text_encoding import VectorCache, item_text, text_key

PROBES = 100
"""Item texts on which the exported encoder is compared with the one that made their vectors."""


def main(argv: list[str] | None = None) -> None:
    """Read ``canonical/catalog.parquet``, write ``text/``."""
    given = arguments("Encode item texts into artifacts/text.", argv)
    settings = params.load(given.params).text
    if settings.encoder is None:
        with replacing_folder(given.artifacts / "text") as folder:
            text_encoding.save(folder, None, {"encoder": None, "language": settings.language})
        return
    encoder = TextEncoder(settings.encoder, settings.max_tokens, settings.batch_size)
    fingerprint = encoder.fingerprint()
    cache = VectorCache(Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache" / fingerprint)
    rows = pq.read_table(given.artifacts / "canonical" / "catalog.parquet", columns=["title", "brand", "category"])
    texts = [text for row in rows.to_pylist() if (text := item_text(*row.values()))]
    vectors = text_encoding.encode(texts, cache, encoder.fill)
    with replacing_folder(given.artifacts / "text") as folder:
        about = {"encoder": settings.encoder, "fingerprint": fingerprint, "max_tokens": settings.max_tokens}
        text_encoding.save(folder, vectors, about | {"language": settings.language})
        if (reason := onnx_export.exportable(Path(encoder.source))) is not None:
            print(f"queries cannot be encoded while serving: {reason}")
            return
        probes = sorted(set(texts))[:: max(1, len(texts) // PROBES)]
        known = vectors.lookup([text_key(text) for text in probes])
        exported = onnx_export.export(
            Path(encoder.source), folder / ENCODER, max_tokens=settings.max_tokens, probes=probes, vectors=known
        )
        print(
            f"encoder of queries: {exported['precision']}, cosine with item vectors at least {exported['least_cosine']}"
        )


if __name__ == "__main__":
    run(main)
