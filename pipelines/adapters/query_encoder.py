"""The encoder of queries that a bundle carries: the language model's network, or vectors of words that do as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.adapters import distiller, onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.params import AllParams
from pipelines.search.encoding import ENCODER

PROBES = 100
"""Item texts on which the exported network is compared with the one that made their vectors."""


def chosen(
    shop: distiller.Shop, texts: Sequence[str], params: AllParams, aside: Path, *, caches: Path
) -> tuple[Path | None, dict[str, Any]]:
    """The encoder of queries for a shop.

    Args:
        shop: the items that are searched.
        texts: what of each is encoded, by code; empty for an item without text.
        params: with an encoder.
        aside: an empty folder to work in.
        caches: folder of the caches of text vectors.

    Returns:
        Its folder, None where queries cannot be encoded; and what was compared, with the ``reason`` why the network
        serves, or nothing does.
    """
    encoder = TextEncoder.of(params.text)
    source = Path(encoder.source)
    if (reason := onnx_export.exportable(source)) is not None:
        return None, {"reason": reason}
    rows = {text: row for row, text in enumerate(texts) if text}
    probes = sorted(rows)[:: max(1, len(rows) // PROBES)]
    vectors = shop.vectors[[rows[text] for text in probes]]
    network, words = aside / "network" / ENCODER, aside / "words" / ENCODER
    exported = onnx_export.export(source, network, max_tokens=params.text.max_tokens, probes=probes, vectors=vectors)
    settings = params.text.distillation
    if not settings.enabled:
        return network, {"exported": exported, "reason": "text.distillation.enabled is false"}
    report = distiller.distil(source, network, words, shop, settings, caches=caches, seed=params.seed)
    return words if report["reason"] is None else network, {"exported": exported, **report}
