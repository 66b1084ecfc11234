"""Boosted trees that learn to rank, as teachers: what serves learns to rank like them, and needs no trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xgboost

from pipelines.learners.listwise import DEPTH, TrainingLists

BINS = 128
"""Steps in which trees read a column."""

ROWS_SHARE, COLUMNS_SHARE = 0.7, 0.5
"""Drawn for each tree, without which trees of few lists are too much alike."""


def boosted_scores(data: TrainingLists, *, config: Mapping[str, Any], seed: int) -> np.ndarray:
    """Scores by LambdaMART of the rows that it was taught on (Burges 2010, section 6).

    Pairs of one of the first places and any other row are weighted by what swapping the two would change in nDCG.

    Args:
        data: the lists, columns as they are; NaN goes where it does best.
        config: fields of ``StackingConfig``: trees, leaves, tree_rate, tree_l2.
        seed: of the draws of rows and columns.

    Returns:
        float32 ``[n]``.
    """
    size = np.diff(data.start)
    rows = xgboost.QuantileDMatrix(
        data.columns,
        data.gains,
        qid=np.repeat(np.arange(len(size)), size),
        weight=data.weight,
        max_bin=BINS,
    )
    params = {
        "objective": "rank:ndcg",
        "ndcg_exp_gain": False,
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": DEPTH,
        "tree_method": "hist",
        "max_bin": BINS,
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": config["leaves"],
        "min_child_weight": 5,
        "eta": config["tree_rate"],
        "reg_lambda": config["tree_l2"],
        "subsample": ROWS_SHARE,
        "colsample_bytree": COLUMNS_SHARE,
        "seed": seed,
    }
    trees = xgboost.train(params, rows, config["trees"])
    scores: np.ndarray = trees.predict(rows)
    print(f"    {config['trees']} trees on {len(size)} lists", flush=True)
    return scores
