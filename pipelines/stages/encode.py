"""Stage ``encode``: a vector for every distinct item text of the catalogue."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq

from pipelines import params, text_encoding
from pipelines.adapters.encoder import KerasEncoder
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder
from pipelines.text_encoding import VectorCache, item_text


def main(argv: list[str] | None = None) -> None:
    """Read ``canonical/catalog.parquet``, write ``text/``."""
    given = arguments("Encode item texts into artifacts/text.", argv)
    settings = params.load(given.params).text
    if settings.encoder is None:
        with replacing_folder(given.artifacts / "text") as folder:
            text_encoding.save(folder, None, {"encoder": None})
        return
    encoder = KerasEncoder(settings.encoder, settings.max_tokens, settings.batch_size)
    fingerprint = encoder.fingerprint()
    cache = VectorCache(Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache" / fingerprint)
    rows = pq.read_table(given.artifacts / "canonical" / "catalog.parquet", columns=["title", "brand", "category"])
    texts = (item_text(*row.values()) for row in rows.to_pylist())
    vectors = text_encoding.encode(texts, cache, encoder.fill)
    with replacing_folder(given.artifacts / "text") as folder:
        about = {"encoder": settings.encoder, "fingerprint": fingerprint, "max_tokens": settings.max_tokens}
        text_encoding.save(folder, vectors, about)


if __name__ == "__main__":
    run(main)
