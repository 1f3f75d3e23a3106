"""Literals of Python as JSON: what has a JSON becomes it, anything else a string; nothing is evaluated."""

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tools.literals import as_json

literals: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(literals)
def test_what_python_writes_is_read_as_what_it_means(value: Any) -> None:
    assert json.loads(as_json(repr(value))) == value
    assert json.loads(as_json(json.dumps(value))) == value
    assert ast.literal_eval(repr(value)) == value


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("'it\\'s'", "it's"),
        ("'\\x41\\u00e9\\d\\\n.'", "Aé\\d."),
        ("(1, 2,)", [1, 2]),
        ("{'a': None, \"b\": [True]}", {"a": None, "b": [True]}),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ("Paris", "Paris"),
        ("f(1)", "f(1)"),
        ("'open", "'open"),
        ("__import__('os')", "__import__('os')"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_a_literal_or_the_source_as_a_string(source: str, meant: Any) -> None:
    assert json.loads(as_json(source)) == meant


@given(st.text("'\"\\[](){},:a1 \n", max_size=20))
def test_any_source_becomes_json(source: str) -> None:
    json.loads(as_json(source))
