"""Vectors of bytes: sums are exact, products near to those of the vectors, and the same however they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.rounded_vectors import LARGEST, PackedVectors, RoundedVectors, integer_products, rounded

DRAWN = np.random.default_rng(5)


def unit(n: int, d: int) -> np.ndarray:
    vectors = DRAWN.standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_largest_coordinate_becomes_127_and_the_others_their_share_of_it() -> None:
    codes, scales = rounded(np.array([[1.27, -0.5, 0.004, 0.0], [0, 0, 0, 0]], np.float16))
    assert codes.tolist() == [[127, -50, 0, 0], [0, 0, 0, 0]]  # .004 / .01 = .4 is nearer to 0
    np.testing.assert_allclose(scales, [0.01, 0], rtol=1e-3)


@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 63, 64, 100, 384, 385, 1040, 1041, 4096])
def test_sums_are_exact_whatever_the_length_and_with_the_largest_numbers_there_are(d: int) -> None:
    one = np.full((1, d), LARGEST, np.int8)
    many = np.stack([one[0], -one[0], DRAWN.integers(-LARGEST, LARGEST + 1, d)]).astype(np.int8)
    by_hand = [sum(int(a) * int(b) for a, b in zip(one[0], row, strict=True)) for row in many]
    assert by_hand[:2] == [127 * 127 * d, -127 * 127 * d]
    assert integer_products(one, many).tolist() == by_hand
    with_scale_1 = RoundedVectors(many, np.ones(3, np.float32))
    packed = PackedVectors(with_scale_1).products(one[0].astype(np.float32) / LARGEST)
    np.testing.assert_array_equal(packed, with_scale_1.products(one[0].astype(np.float32) / LARGEST))
    np.testing.assert_allclose(packed * LARGEST, by_hand, rtol=1e-6)


def test_a_product_is_off_by_no_more_than_its_bound() -> None:
    vectors, asked = unit(500, 384), unit(1, 384)[0]
    kept = RoundedVectors.of(vectors)
    _, scale = rounded(asked[None])
    near = np.abs(kept.codes * kept.scales[:, None]).sum(axis=1)
    bound = (kept.scales * np.abs(asked).sum() + scale * near) / 2
    error = np.abs(kept.products(asked) - vectors.astype(np.float64) @ asked)
    assert (error <= bound).all()
    assert bound.max() < 0.04
    assert np.sqrt((error**2).mean()) < 0.001


@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_a_question_is_rounded_as_a_row_is_to_the_bit(asked: np.ndarray) -> None:
    identity = RoundedVectors(np.eye(len(asked), dtype=np.int8), np.ones(len(asked), np.float32))
    codes, scales = rounded(asked[None])
    np.testing.assert_array_equal(identity.products(asked), codes[0].astype(np.float32) * scales)


def test_some_rows_score_as_all_do_to_the_bit() -> None:
    kept, asked = RoundedVectors.of(unit(300, 48)), unit(1, 48)[0]
    for rows in (np.array([7]), np.array([299, 0, 7, 7]), np.zeros(0, np.int64)):
        np.testing.assert_array_equal(kept.products(asked, rows), kept.products(asked)[rows])


@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 384), (1000, 96), (257, 33), (0, 8)])
def test_packed_rows_score_as_they_do_unpacked_to_the_bit(n: int, d: int) -> None:
    vectors = unit(n, d)
    vectors[1:2] = 0
    kept, asked = RoundedVectors.of(vectors), unit(1, d)[0]
    packed = PackedVectors(kept)
    for question in (asked, -asked, np.zeros(d, np.float32)):
        np.testing.assert_array_equal(packed.products(question), kept.products(question))


def test_a_row_of_zeros_has_no_product_and_a_question_of_zeros_has_products_of_zero() -> None:
    kept = RoundedVectors.of(np.array([[0.6, 0.8], [0, 0]], np.float16))
    np.testing.assert_allclose(kept.products(np.array([0.6, 0.8], np.float32)), [1, np.nan], atol=0.01)
    np.testing.assert_array_equal(kept.products(np.zeros(2, np.float32)), [0, np.nan])


def test_no_rows_give_no_products() -> None:
    assert RoundedVectors.of(np.zeros((0, 8), np.float16)).products(np.ones(8, np.float32)).shape == (0,)


def test_what_was_saved_is_read_from_the_files_and_not_copied(tmp_path: Path) -> None:
    kept, asked = RoundedVectors.of(unit(40, 16)), unit(1, 16)[0]
    kept.save(tmp_path)
    read = RoundedVectors.load(tmp_path)
    assert not read.codes.flags.owndata
    assert read.codes.nbytes == 40 * 16
    np.testing.assert_array_equal(read.products(asked), kept.products(asked))


def test_vectors_that_an_earlier_version_wrote_are_still_read(tmp_path: Path) -> None:
    vectors, asked = unit(40, 16).astype(np.float16), unit(1, 16)[0]
    np.save(tmp_path / "vectors.npy", vectors)
    np.testing.assert_array_equal(
        RoundedVectors.load(tmp_path).products(asked), RoundedVectors.of(vectors).products(asked)
    )
