"""Stage ``encode``: vectors of the item texts known at t2 and at t3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines import params, text_encoding
from pipelines.adapters.encoder import TextEncoder
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder
from pipelines.text_encoding import TextVectors, VectorCache, text_key, texts_of
from pipelines.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Read the catalogues of ``split/``, write ``text/history/`` and ``text/current/``."""
    given = arguments("Encode item texts into artifacts/text.", argv)
    work = Workspace(given.artifacts)
    settings = params.load(given.params).text
    about: dict[str, Any] = {"encoder": settings.encoder, "language": settings.language}
    if settings.encoder is None:
        for served in (False, True):
            _save(work.text(served=served), None, about)
        return
    encoder = TextEncoder.of(settings)
    about |= {"fingerprint": encoder.fingerprint(), "max_tokens": settings.max_tokens}
    cache = VectorCache(Path(os.environ.get("FUSELINE_HOME", ".")) / "var" / "text_cache" / about["fingerprint"])
    before, now = set(texts_of(work.history)), set(texts_of(work.current))
    vectors = text_encoding.encode(before | now, cache, encoder.fill)
    _save(work.text(served=False), vectors.of(text_key(text) for text in before), about)
    _save(work.text(served=True), vectors.of(text_key(text) for text in now), about)


def _save(folder: Path, vectors: TextVectors | None, about: dict[str, Any]) -> None:
    with replacing_folder(folder) as aside:
        text_encoding.save(aside, vectors, about)


if __name__ == "__main__":
    run(main)
