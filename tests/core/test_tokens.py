"""The estimate: Chinese counts per character, pieces count like the whole."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tokens import COUNTED_AT_ONCE, Tally, estimate
from gateway.serve.steps import LONG_PROMPT


def test_chinese_counts_one_per_character() -> None:
    assert estimate("你好，世界") == 5


def test_english_counts_one_per_four_characters() -> None:
    assert estimate("abcdefgh") == 2
    assert estimate("abcdefghi") == 3
    assert estimate("") == 0


def test_mixed_text_counts_both() -> None:
    assert estimate("你好 abc") == 2 + 1


@given(st.lists(st.text("ab 你好é"), max_size=10))
def test_a_tally_of_pieces_is_the_estimate_of_the_whole(parts: list[str]) -> None:
    tally = Tally()
    for part in parts:
        tally.add(part)
    assert tally.total() == estimate("".join(parts))


@given(st.lists(st.text(), max_size=10))
def test_a_tally_with_a_tokenizer_counts_the_whole_text(parts: list[str]) -> None:
    tally = Tally(len)
    for part in parts:
        tally.add(part)
    assert tally.total() == len("".join(parts))


def test_a_long_text_is_counted_in_parts() -> None:
    longest = 0

    def count(text: str) -> int:
        nonlocal longest
        longest = max(longest, len(text))
        return len(text)

    tally = Tally(count)
    for _ in range(300):
        tally.add("x" * 1000)
    assert tally.total() == 300_000
    assert longest <= COUNTED_AT_ONCE + 1000 < LONG_PROMPT  # more would hold up the event loop
