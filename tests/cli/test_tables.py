"""Tables and progress in themselves: how wide columns become, what a pipe gets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gateway.cli.progress import Plain, remaining
from gateway.cli.tables import GAP, LEAST, WORD, Look, table, widths

words = st.text(st.sampled_from("ab中"), min_size=1, max_size=50)
cells = st.lists(words, max_size=4).map(" ".join)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1), st.integers(20, 140))
def test_columns_fit_whatever_they_hold_and_words_stay_whole_where_they_can(
    rows: list[tuple[str, str, str]], room: int
) -> None:
    head = ("ONE", "TWO", "THREE")
    given = widths(head, rows, ("THREE", "TWO"), room)
    assert all(any(row[head.index(name)] for row in rows) for name in given)
    if given:
        assert sum(given.values()) + GAP * (len(given) - 1) <= max(room, LEAST)
    if len(given) > 1:  # what could have been spared is there only where nobody's words are broken for it
        longest = {
            name: max(cell_len(word) for row in rows for word in row[head.index(name)].split() or [""])
            for name in given
        }
        assert all(given[name] >= min(longest[name], WORD) for name in given)


def test_a_pipe_gets_every_cell_whole_and_numbers_at_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    table(("NAME", "N"), [("x" * 200, "1"), ("y", "1,000")], Look(right=("N",), spare=("N",)))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == f"{'NAME':200}  {'N':>5}"
    assert first == f"{'x' * 200}  {'1':>5}"
    assert second == f"{'y':200}  1,000"


def test_a_pipe_gets_straight_columns_whatever_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("小王", "1", "x"), ("ann", "中", "x"), ("é", "10", "x")]
    table(("NAME", "N", "END"), rows, Look(right=("N",)))
    assert capsys.readouterr().out.splitlines() == [
        "NAME   N  END",
        "小王   1  x",
        "ann   中  x",
        "é     10  x",
    ]


def test_what_is_left_is_told_from_what_it_takes_as_a_rule() -> None:
    step: dict[str, Any] = {"state": "booting", "elapsed": 5.2, "expected": None}
    assert remaining(step) == ""
    assert remaining({**step, "expected": 20.0}) == "about 15 s left"
    assert remaining({**step, "expected": 4.0}) == "longer than the usual 4 s"


def test_a_pipe_gets_a_line_for_each_state_and_one_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    tell = Plain("m")
    for second in range(25):
        tell({"state": "booting" if second < 23 else "cold", "elapsed": float(second), "expected": 30.0})
    assert capsys.readouterr().err.splitlines() == [
        "m: booting, 0 s, about 30 s left",
        "m: booting, 10 s, about 20 s left",
        "m: booting, 20 s, about 10 s left",
        "m: cold, 23 s, about 7 s left",
    ]
