"""What has just come in is proposed by how well it starts; what is no longer new is left to the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.features.state import FeatureState, UserHistory
from pipelines.model_api import Context, FittedModel, TrainingData
from pipelines.models import newcomers
from pipelines.models.newcomers import NewcomersConfig
from tests.conformance import worlds

STRANGER = Context(UserHistory.empty(), "recommend_new")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    """``fast`` sells daily for four days, ``slow`` twice in 20, ``lucky`` once an hour ago, ``old`` daily for 60."""
    rows = [worlds.row(f"u{day}", "fast", day) for day in (1, 2, 3, 4)]
    rows += [worlds.row(f"u{day}", "slow", day) for day in (2, 20)]
    rows += [worlds.row("u1", "lucky", 1 / 24)]
    rows += [worlds.row(f"u{day}", "old", day) for day in range(1, 61)]
    products = [worlds.product(item) for item in ("fast", "slow", "lucky", "old", "unsold")]
    return worlds.state(worlds.write(tmp_path_factory.mktemp("shop"), rows, products))


def fitted(features: FeatureState, **settings: float) -> FittedModel:
    return newcomers.fit(NewcomersConfig(**settings), TrainingData(features), seed=0)


def rates(features: FeatureState, **settings: float) -> dict[str, float]:
    return dict(zip(features.item_ids.ids(), fitted(features, **settings).score_all(STRANGER).tolist(), strict=True))


def test_the_rate_is_that_of_a_poisson_process_with_the_usual_newcomer_as_prior(features: FeatureState) -> None:
    found = rates(features, prior_days=3)
    usual = (4 + 2 + 1) / (4 + 20 + 1 / 24)
    assert found["fast"] == pytest.approx((4 + 3 * usual) / (4 + 3))
    assert found["slow"] == pytest.approx((2 + 3 * usual) / (20 + 3))
    assert found["lucky"] == pytest.approx((1 + 3 * usual) / (1 / 24 + 3))


def test_one_order_in_the_first_hour_does_not_lead(features: FeatureState) -> None:
    found = rates(features)
    assert found["fast"] > found["lucky"] > found["slow"]


def test_items_that_are_not_new_or_never_sold_are_left_to_others(features: FeatureState) -> None:
    assert {item for item, rate in rates(features).items() if np.isnan(rate)} == {"old", "unsold"}
    codes = fitted(features).propose(STRANGER, 10).codes
    assert [features.item_ids[code] for code in codes] == ["fast", "lucky", "slow"]


def test_how_long_an_item_is_new_can_be_set(features: FeatureState) -> None:
    assert {item for item, rate in rates(features, days=5).items() if not np.isnan(rate)} == {"fast", "lucky"}
    with pytest.raises(ValueError, match="greater than 0"):
        NewcomersConfig(days=0)


def test_a_shop_without_newcomers_gets_no_opinion(tmp_path: Path) -> None:
    rows = [worlds.row("u", "old", day) for day in (40, 50)]
    model = fitted(worlds.state(worlds.write(tmp_path, rows, [worlds.product("old")])))
    assert np.isnan(model.score_all(STRANGER)).all()
    assert not len(model.propose(STRANGER, 5).codes)
