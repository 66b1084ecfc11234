"""A service around a made bundle, one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.made_bundle import make
from tests.e2e.server import Server, serving


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle that recommends and searches."""
    return make(tmp_path_factory.mktemp("world") / "bundle")


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service of two workers that serves it."""
    with serving(tmp_path_factory.mktemp("home"), workers=2, FUSELINE_BUNDLE=str(bundle)) as started:
        yield started
