"""Stage ``encode_queries``: the encoder of the item texts as the service runs it on queries."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pipelines import params, text_encoding
from pipelines.adapters import onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.search.encoding import ENCODER
from pipelines.stages.running import arguments, run
from pipelines.storage import replacing_folder, write_json
from pipelines.text_encoding import text_key, texts_of
from pipelines.workspace import Workspace

PROBES = 100
"""Item texts on which the exported encoder is compared with the one that made their vectors."""


def main(argv: list[str] | None = None) -> None:
    """Write ``query_encoder/``: the exported encoder, or why queries cannot be encoded."""
    given = arguments("Export the encoder of queries into artifacts/query_encoder.", argv)
    work = Workspace(given.artifacts)
    settings = params.load(given.params).text
    if settings.encoder is None:
        _write(work, None, "text.encoder is null")
        return
    source = Path(TextEncoder(settings.encoder, settings.max_tokens, settings.batch_size).source)
    if (reason := onnx_export.exportable(source)) is not None:
        _write(work, None, reason)
        return
    vectors, texts = text_encoding.load(work.text(served=False)), sorted(set(texts_of(work.history)))
    assert vectors is not None  # noqa: S101 - there is an encoder
    probes = texts[:: max(1, len(texts) // PROBES)]
    known = vectors.lookup([text_key(text) for text in probes])
    with tempfile.TemporaryDirectory() as aside:
        made = Path(aside) / ENCODER
        found = onnx_export.export(source, made, max_tokens=settings.max_tokens, probes=probes, vectors=known)
        _write(work, made, None)
    print(f"encoder of queries: {found['precision']}, cosine with item vectors at least {found['least_cosine']}")


def _write(work: Workspace, made: Path | None, reason: str | None) -> None:
    if reason is not None:
        print(f"queries cannot be encoded while serving: {reason}")
    with replacing_folder(work.query_encoder.parent) as folder:
        if made is not None:
            shutil.copytree(made, folder / work.query_encoder.name)
        write_json(folder / "about.json", {"reason": reason})


if __name__ == "__main__":
    run(main)
