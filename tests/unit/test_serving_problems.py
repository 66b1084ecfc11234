"""A refused request names the field and says what is wrong with it, without the words of a library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from serving import problems
from serving.schemas import SearchRequest


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"query": "  "}, "query", "holds nothing that can be seen"),
        ({"query": "mug", "filter": {"colour": "red"}}, "filter.colour", "is not a field that can be given here"),
        ({"query": "mug", "filter": {"price_min": 2, "price_max": 1}}, "filter", "price_min is above price_max"),
        ({"query": "mug", "n": 0}, "n", "Input should be greater than or equal to 1"),
        ([], "body", "Input should be an object"),
    ],
)
def test_a_refusal_names_the_field_and_the_reason(body: Any, field: str, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SearchRequest.model_validate_json(json.dumps(body))
    assert problems.invalid(refused.value).errors == [{"field": field, "reason": reason}]
