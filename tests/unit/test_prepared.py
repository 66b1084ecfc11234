"""What a bundle carries ready made is what its workers would make, and they do not make it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import made_bundle
from pipelines import prepared
from pipelines.attributes import Attributes
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.prepared import Prepared
from pipelines.ranking import Filter, RankRequest
from pipelines.search.suggestions import Beginnings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_bundle.make(tmp_path_factory.mktemp("made") / "bundle")


def answers(bundle: Bundle) -> list[object]:
    fields = bundle.catalogue.fields
    asked = RankRequest(surface=Surface.SEARCH, query="thing", facets=fields)
    red = Filter(attributes=(("color", ("RED",)),))
    return [
        fields,
        bundle.rank(asked, bundle.history()).facets,
        bundle.catalogue.passing(red).tolist(),
        *(bundle.reader.suggestions(typed, 9) for typed in ("", "t", "thing i00", "ki", "thong ")),
    ]


def test_a_bundle_answers_the_same_with_what_is_prepared_and_without(folder: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder, tmp_path / "plain"))
    shutil.rmtree(plain / prepared.FOLDER)
    found, made = answers(Bundle.load(folder)), answers(Bundle.load(plain, verify=False))
    assert found == made
    assert any(found[1].values())  # type: ignore[attr-defined]
    assert all(found[2:])


def test_what_is_prepared_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(Attributes, "of", again)
    monkeypatch.setattr(Beginnings, "of", again)
    assert answers(Bundle.load(folder))


def test_a_bundle_that_does_not_search_carries_no_suggestions(folder: Path, tmp_path: Path) -> None:
    Prepared.of(Bundle.load(folder).features, searched=False).save(tmp_path / "prepared")
    found = Prepared.load(tmp_path / "prepared")
    assert found is not None
    assert found.attributes.names
    assert found.beginnings is None
