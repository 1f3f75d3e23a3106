"""The demo engine with a context: which sentence it tells, and when it says that there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.engines.demo.replies import reply

DOCUMENT = "# Bicycles\n\nA bicycle costs 4.50 a day. Trailers are free! Count to 10 first.\nHelmets: ask us"


def asked(question: str, context: str = DOCUMENT) -> str:
    return f"Answer from the context.\n\nContext:\n{context}\n\nQuestion: {question}"


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("How much is a bicycle for a day?", "A bicycle costs 4.50 a day."),
        ("Is the trailer free?", "Trailers are free!"),
        ("Any helmets?", "Helmets: ask us"),
        ("bicycles", "# Bicycles"),
    ],
)
def test_the_sentence_that_shares_most_words_is_told(question: str, wanted: str) -> None:
    assert reply(asked(question)) == f"The context says: “{wanted}”"


def test_without_a_shared_word_that_is_said() -> None:
    assert reply(asked("Where does the sun set?")) == "The context shares no word with the question."
    assert reply(asked("Why?", "")) == "The context shares no word with the question."


def test_the_question_may_come_first() -> None:
    message = f"Question: Is a trailer free? \nContext: {DOCUMENT} \nAnswer:"
    assert reply(message) == "The context says: “Trailers are free!”"


def test_questions_in_a_document_are_not_the_question() -> None:
    context = "Question: Are dogs allowed?\nDogs stay outside. Cats may come in."
    assert reply(asked("What of cats?", context)) == "The context says: “Cats may come in.”"


def test_chinese() -> None:
    message = "上下文：\n图书馆周一关门。借书期限是三周。\n\n问题：借书期限多长？"
    assert reply(message) == "上下文里说：“借书期限是三周。”"
    assert reply("上下文：\n周一关门。\n\n问题：多少钱？") == "上下文里没有与问题相同的词。"


@pytest.mark.parametrize("message", ["Context: a dog", "Question: a dog?", "My context: a\nThe question: a"])
def test_a_message_without_both_is_as_any_other(message: str) -> None:
    assert "No model runs here" in reply(message)


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Zl", "Zp", "Cc"])))
def test_what_is_told_stands_in_the_context(context: str, question: str) -> None:
    said = reply(asked(question, context))
    told = said.partition("“")[2].rpartition("”")[0]
    assert told in asked(question, context)
