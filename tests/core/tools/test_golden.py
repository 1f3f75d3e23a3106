"""What models write and what becomes of it: ``golden/DIALECT/CASE.txt``, and beside it the events.

Adding a case is adding a file with an answer (its last line end is the file's own); ``make golden`` writes
the events. Every case is read whole, character by character, and cut in two at every place.
"""

from pathlib import Path

import pytest

from gateway.core.tools import DIALECTS
from tests.conftest import Golden
from tests.core.tools.answers import read, watch, written

HERE = Path(__file__).parent / "golden"
CASES = sorted(HERE.glob("*/*.txt"))


def test_every_dialect_has_cases() -> None:
    assert {path.parent.name for path in CASES} == set(DIALECTS)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_answer_becomes_these_events_wherever_it_is_cut(case: Path, golden: Golden) -> None:
    text = case.read_text(encoding="utf-8").removesuffix("\n")
    dialect = case.parent.name
    whole = read(watch(dialect), [text])
    golden.check(case.with_suffix(".events").absolute(), written(whole))
    assert read(watch(dialect), list(text)) == whole
    for at in range(1, len(text)):
        assert read(watch(dialect), [text[:at], text[at:]]) == whole, f"cut at {at}"
