"""The compiled inner loops give what numpy gives, to the bit, and refuse what would make them read elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks import made_bundle
from pipelines import native
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.fusion.candidates import gather, scaled
from pipelines.fusion.quality import ordered
from pipelines.half_bytes import HalfByteVectors
from pipelines.model_api import Context, leading
from pipelines.models import bm25
from pipelines.ranking import RankRequest
from pipelines.rounded_vectors import PackedVectors, RoundedVectors
from pipelines.search.query import Query

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.0, 2.0, np.float32(1e-42), -1.5]

pytestmark = pytest.mark.skipif(native.kernels is None, reason=f"compiled loops: {native.state}")


@contextmanager
def numpy_alone() -> Iterator[None]:
    kernels = native.kernels
    native.kernels = None
    try:
        yield
    finally:
        native.kernels = kernels


def both(asked: Callable[[], Any]) -> tuple[Any, Any]:
    with numpy_alone(), np.errstate(all="ignore"):
        plain = asked()
    return asked(), plain


def kernels() -> ModuleType:
    assert native.kernels is not None
    return native.kernels


def scores(draw: np.random.Generator, n: int, *, special: float, distinct: int) -> np.ndarray:
    """Normal numbers, few different ones where ``distinct`` is small, some of them special."""
    plain = np.round(draw.normal(size=n) * distinct) / distinct
    return np.where(draw.random(n) < special, draw.choice(SPECIAL, n), plain).astype(np.float32)


@pytest.fixture(scope="module", params=["avx512vnni", "avx2", "plain"])
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    if not kernels().use(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    assert any(kernels().use(one) for one in ("avx512vnni", "avx2", "plain"))


@pytest.mark.usefixtures("level")
@settings(max_examples=100, deadline=None)
@given(
    size=st.one_of(st.integers(0, 80), st.integers(1000, 9000)),
    n=st.integers(0, 300),
    special=st.sampled_from([0.0, 0.1, 0.9]),
    distinct=st.sampled_from([1, 5, 10**6]),
    may=st.sampled_from([None, 0.0, 0.05, 0.9]),
    seed=st.integers(0, 9999),
)
def test_the_best_scores_are_those_of_numpy(
    *, size: int, n: int, special: float, distinct: int, may: float | None, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    values = scores(draw, size, special=special, distinct=distinct)
    allowed = None if may is None else draw.random(size) < may
    found, plain = both(lambda: leading(values, n, allowed))
    np.testing.assert_array_equal(found, plain)
    positive = np.abs(np.nan_to_num(values, nan=0.0, posinf=3, neginf=0))  # sums of postings: 0 is no opinion
    np.testing.assert_array_equal(*both(lambda: leading(positive, n, allowed, silent=0)))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("above", [None, -np.inf, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf])
@pytest.mark.parametrize("n", [1, 100, 399])
def test_what_is_not_above_a_bound_is_left_out(above: float | None, n: int) -> None:
    draw = np.random.default_rng(n)
    edges = np.array([-np.inf, -3e38, -1, -1e-45, -0.0, 0, 1e-45, 1, np.nextafter(np.float32(1), 2), 3e38, np.inf])
    few, many = draw.choice(edges, 40).astype(np.float32), draw.choice(edges, 7000).astype(np.float32)
    for values in (few, many, np.sort(many), np.sort(many)[::-1].copy(), np.full(7000, above or 0, np.float32)):
        meant = np.flatnonzero(values >= -np.inf if above is None else values > np.float32(above))
        best = np.sort(meant[np.lexsort((meant, -values[meant]))[:n]])
        out = np.empty(n, np.int64)
        np.testing.assert_array_equal(out[: kernels().leading(values, None, above, out)], best)


@pytest.mark.usefixtures("level")
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    d=st.sampled_from([1, 7, 15, 16, 31, 32, 33, 63, 64, 65, 96, 100, 384]),
    largest=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_products_of_bytes_are_those_of_numpy(*, n: int, d: int, largest: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    codes = draw.choice([-127, 127], (n, d)) if largest else draw.integers(-127, 128, (n, d))
    scales = np.where(draw.random(n) < 0.1, np.nan, draw.random(n)).astype(np.float32)
    kept = RoundedVectors(codes.astype(np.int8), scales)
    asked = (draw.normal(size=d) * (draw.random() < 0.9)).astype(np.float32)
    if draw.random() < 0.1:
        asked[draw.integers(d)] = draw.choice([np.nan, np.inf, -np.inf])
    rows = draw.integers(0, n, draw.integers(0, 2 * n))
    np.testing.assert_array_equal(*both(lambda: kept.products(asked)))
    np.testing.assert_array_equal(*both(lambda: kept.products(asked, rows)))
    np.testing.assert_array_equal(*both(lambda: PackedVectors(kept).products(asked)))


@pytest.mark.usefixtures("level")
@settings(max_examples=40, deadline=None)
@given(
    n=st.one_of(st.integers(0, 30), st.just(2050)),
    h=st.sampled_from([1, 8, 15, 16, 17, 31, 32, 48, 64, 65]),
    seed=st.integers(0, 9999),
)
def test_products_of_half_bytes_are_those_of_numpy(*, n: int, h: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    kept = HalfByteVectors.of(draw.normal(size=(n, 2 * h)) * (draw.random((n, 1)) < 0.9))
    extreme = HalfByteVectors(np.full((n, h), draw.choice([0x11, 0xFF, 0x1F])).astype(np.uint8), np.ones(n, np.float32))
    asked = draw.choice([-1.0, 1.0], 2 * h) if draw.random() < 0.3 else draw.normal(size=2 * h)
    if draw.random() < 0.1:
        asked[draw.integers(2 * h)] = draw.choice([np.nan, np.inf, -np.inf])
    for one in (kept, extreme):
        np.testing.assert_array_equal(*both(lambda one=one: one.products(asked)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_question_of_another_precision_or_with_gaps_is_one_of_float32(dtype: type) -> None:
    kept = RoundedVectors.of(np.random.default_rng(1).normal(size=(20, 12)))
    asked = np.linspace(-1, 1, 24).astype(dtype)[::2]
    np.testing.assert_array_equal(*both(lambda: kept.products(asked)))


@settings(max_examples=40, deadline=None)
@given(k1=st.sampled_from([0.0, 1.5]), n=st.integers(1, 40), seed=st.integers(0, 9999))
def test_sums_of_postings_are_those_of_the_library(*, k1: float, n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    words = [f"w{place}" for place in range(30)]
    legs = {name: [list(draw.choice(words, draw.integers(0, 9))) for _ in range(n)] for name in bm25.LEGS}
    member = bm25.of_terms(bm25.Bm25Config(k1=k1), legs)
    asked = tuple(dict.fromkeys([*draw.choice(words, 4).tolist(), "unheard"]))
    context = Context(UserHistory.empty(), Surface.SEARCH, Query(" ".join(asked), asked))
    np.testing.assert_array_equal(*both(lambda: member.score_all(context)))
    found, plain = both(lambda: member.propose(context, 5))
    np.testing.assert_array_equal(found.codes, plain.codes)
    np.testing.assert_array_equal(found.score(found.codes), plain.score(plain.codes))


@given(m=st.integers(0, 20), d=st.sampled_from([1, 3, 64, 384]), seed=st.integers(0, 9999))
def test_the_direction_of_a_sum_is_that_of_numpy(*, m: int, d: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    kept = RoundedVectors.of(draw.normal(size=(30, d)) * (draw.random((30, 1)) < 0.8))
    rows = draw.integers(0, 30, m)
    found, plain = both(lambda: kept.direction(rows))
    assert (found is None) == (plain is None)
    if found is not None:
        np.testing.assert_array_equal(found, plain)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        meant = np.nan_to_num(kept.scales[rows]).astype(np.float64) @ kept.codes[rows]
        assert found @ meant == pytest.approx(np.linalg.norm(meant), rel=1e-5)


@given(columns=arrays(np.float32, st.tuples(st.integers(0, 20), st.integers(0, 4)), elements=st.sampled_from(SPECIAL)))
def test_scaled_columns_are_those_of_numpy(columns: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        for one in (columns, np.asfortranarray(columns)):
            found, plain = both(lambda one=one: scaled(one))
            np.testing.assert_array_equal(found, plain)
            known = ~np.isnan(plain)
            np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(plain[known]))


@given(
    values=arrays(np.float32, st.integers(0, 60), elements=st.sampled_from(SPECIAL)),
    ascending=st.booleans(),
    seed=st.integers(0, 99),
)
def test_orders_are_those_of_numpy(*, values: np.ndarray, ascending: bool, seed: int) -> None:
    codes = np.random.default_rng(seed).choice(10**6, len(values), replace=False)
    codes = np.sort(codes) if ascending else codes
    np.testing.assert_array_equal(*both(lambda: ordered(values, codes)))


def test_orders_of_many_scores_are_those_of_numpy() -> None:
    draw = np.random.default_rng(3)
    for distinct in (2, 10**6):
        values = scores(draw, 5000, special=0.05, distinct=distinct)
        np.testing.assert_array_equal(*both(lambda values=values: ordered(values, np.arange(5000))))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(made_bundle.make(tmp_path_factory.mktemp("made") / "bundle"))


@pytest.mark.parametrize("query", ["thing", "thing i0001", "i0007 i0011", "nothing of it"])
def test_a_search_finds_the_same_items_with_the_same_scores_without_them(bundle: Bundle, query: str) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query=query, n=200, explain=True)  # so that no order is kept
    found, plain = both(lambda: bundle.rank(asked, bundle.history()))
    assert len(found.items) > 10
    assert found == plain


def test_a_list_for_a_user_is_the_same_without_them(bundle: Bundle) -> None:
    for user in bundle.features.user_ids.ids([0, 1, 2]):
        history = bundle.history(user_id=user)
        found, plain = both(lambda history=history: bundle.rank(replace(RankRequest(), n=50), history))
        assert len(found.items) == 50
        assert found == plain


def test_candidates_are_the_union_of_what_members_propose(bundle: Bundle) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("thing i0003"))
    found, plain = both(lambda: gather(bundle.on(Surface.SEARCH), context, depth=40, allowed=None))
    np.testing.assert_array_equal(found.codes, plain.codes)
    np.testing.assert_array_equal(found.scores, plain.scores)
    assert (np.diff(found.codes) > 0).all()


FLOATS, LONGS, BYTES = np.zeros(4, np.float32), np.zeros(4, np.int64), np.zeros((4, 2), np.int8)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "said"),
    [
        ("leading", (np.zeros(4), None, None, LONGS), TypeError, "format d where float32"),
        ("leading", (FLOATS, np.ones(3, np.bool_), None, LONGS), ValueError, "3 elements where 4"),
        ("leading", (np.zeros(8, np.float32)[::2], None, None, LONGS), ValueError, "contiguous"),
        ("leading", (FLOATS, None, None), TypeError, "3 arguments where 4"),
        ("products", (BYTES, FLOATS, np.zeros(3, np.float32), None, FLOATS), ValueError, "8 codes are not 4 rows of 3"),
        ("products", (BYTES, FLOATS, FLOATS[:2], LONGS + 4, FLOATS), IndexError, "row 4 of 4"),
        ("products", (BYTES, FLOATS, FLOATS[:2], LONGS - 1, FLOATS), IndexError, "row -1 of 4"),
        ("products", (BYTES, FLOATS, FLOATS[:2], None, FLOATS[:3]), ValueError, "3 elements where 4"),
        (
            "half_byte_products",
            (np.zeros(6, np.uint8), FLOATS, FLOATS[:3], FLOATS),
            ValueError,
            "rows of 3 numbers",
        ),
        ("half_byte_products", (BYTES, FLOATS, FLOATS, FLOATS), TypeError, "format b where uint8"),
        ("products", (BYTES, FLOATS, FLOATS[:2], FLOATS, FLOATS), TypeError, "format f where int64"),
        ("leading", (FLOATS, None, "much", LONGS), TypeError, "real number"),
        ("opinions", (FLOATS, LONGS + 4, FLOATS), IndexError, "code 4 of 4"),
        ("opinions", (FLOATS, LONGS - 1, FLOATS), IndexError, "code -1 of 4"),
        ("opinions", (FLOATS, LONGS, FLOATS[:3]), ValueError, "3 elements where 4"),
        ("direction", (BYTES, FLOATS, LONGS + 4, FLOATS[:2]), IndexError, "row 4 of 4"),
        ("direction", (BYTES, FLOATS, LONGS - 1, FLOATS[:2]), IndexError, "row -1 of 4"),
        ("direction", (BYTES, FLOATS, LONGS, FLOATS), ValueError, "8 codes are not 4 rows of 4"),
        ("distinct", (LONGS + 9, 9, LONGS), IndexError, "code 9 of 9"),
        ("distinct", (LONGS, -64, LONGS), ValueError, "-64 items"),
        ("scaled", (FLOATS, 3, FLOATS), ValueError, "4 numbers are not 3 columns"),
        ("scaled", (FLOATS, 0, FLOATS), ValueError, "4 numbers are not 0 columns"),
        ("scaled", (FLOATS, -2, FLOATS), ValueError, "4 numbers are not -2 columns"),
        ("scaled", (memoryview(bytearray(17))[1:].cast("f"), 1, FLOATS), ValueError, "not aligned"),
        ("posting_sums", (LONGS, LONGS, FLOATS, LONGS, FLOATS), TypeError, "where int32"),
        ("use", (3,), TypeError, "argument"),
        ("scaled", (FLOATS, 1, LONGS), TypeError, "float32"),
        ("descending", (FLOATS, LONGS, LONGS[:3]), ValueError, "3 elements where 4"),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: tuple[Any, ...], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        getattr(kernels(), name)(*arguments)


@pytest.mark.parametrize(
    ("pointer", "items", "terms", "said"),
    [
        ([0, 2], [0, 1], [1], "term 1 of 1"),
        ([0, 2], [0, 1], [-1], "term -1 of 1"),
        ([0, 2], [0, 1], [2**63 - 1], "term 9223372036854775807 of 1"),
        ([0, 3], [0, 1], [0], "term 0 of 1"),
        ([0, 1, 0], [0, 1], [1], "term 1 of 2"),
        ([-1, 2], [0, 1], [0], "term 0 of 1"),
        ([0, 2], [0, 4], [0], "item 4 of 4"),
        ([0, 2], [0, -1], [0], "item -1 of 4"),
    ],
)
def test_a_damaged_index_is_an_error_and_not_a_crash(
    pointer: list[int], items: list[int], terms: list[int], said: str
) -> None:
    values = np.ones(len(items), np.float32)
    arguments = np.array(pointer), np.array(items, np.int32), values, np.array(terms), np.zeros(4, np.float32)
    with pytest.raises(IndexError, match=said):
        kernels().posting_sums(*arguments)


def test_what_cannot_be_written_to_is_not_written_to() -> None:
    fixed = np.zeros(4, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels().scaled(FLOATS, 1, fixed)


def state_of(folder: Path, *options: str, **environment: str) -> str:
    program = "from pipelines import native; print(native.kernels is not None, native.state)"
    command = [sys.executable, *options, "-c", program]
    environ = {**os.environ, "PYTHONPATH": str(folder), **environment}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    """The package without its compiled file."""
    (tmp_path / "pipelines" / "native").mkdir(parents=True)
    for name in ("__init__.py", "native/__init__.py"):
        shutil.copy(ROOT / "pipelines" / name, tmp_path / "pipelines" / name)
    return tmp_path


def test_one_variable_switches_them_off() -> None:
    assert state_of(ROOT) == "True in use"
    assert state_of(ROOT, FUSELINE_NATIVE="0") == "False switched off by FUSELINE_NATIVE=0"


def test_a_worktree_uses_those_of_the_checkout_that_is_installed(worktree: Path) -> None:
    assert state_of(worktree) == "True in use"


def test_where_none_were_built_it_says_so(worktree: Path) -> None:
    assert state_of(worktree, "-S").startswith("False not built: ")  # -S: nothing is installed


def test_those_of_another_version_are_left_alone(worktree: Path) -> None:
    text = worktree / "pipelines" / "native" / "__init__.py"
    text.write_text(text.read_text().replace("WANTED = ", "WANTED = 1000 + "))
    assert state_of(worktree) == f"False built for another version ({kernels().VERSION}, wanted {1000 + native.WANTED})"


def test_a_machine_without_a_compiler_installs_the_rest(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pipelines" / "native").mkdir(parents=True)
    for name in ("__init__.py", "native/__init__.py", "native/_kernels.c"):
        shutil.copy(ROOT / "pipelines" / name, tmp_path / "pipelines" / name)
    program = "from setuptools import setup; setup(script_args=['-q', 'build_ext', '--inplace'])"
    command, environ = [sys.executable, "-c", program], {**os.environ, "CC": "/nowhere/cc"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))
    assert "/nowhere/cc" in done.stdout + done.stderr
