"""Shared by all tests: the repository's root is importable from, and the environment is a person's plain one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "architecture"))

# Before any test imports TensorFlow: TF-Recommenders needs Keras 2, and nothing phones home.
os.environ.update(
    {
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "BENTOML_DO_NOT_TRACK": "True",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "False",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
)

# A change breaks the same example on every machine; `make test-exhaustive` searches with new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests neither read nor write the state of the checkout they run in."""
    for name in list(os.environ):
        if name.startswith("FUSELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FUSELINE_HOME", str(tmp_path / "home"))


@pytest.fixture
def root() -> Path:
    """The repository's root."""
    return ROOT
