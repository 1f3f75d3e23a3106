"""What counts as a prompt's text: all that a client sends to be read, in whichever shape it comes."""

from typing import Any

import pytest

from gateway.core.call import ChatCall, EmbedCall, PromptCall, for_choices
from gateway.core.events import Usage
from gateway.core.tokens import estimate
from gateway.core.usage import guessed, least_text, most_asked, prompt_texts, summed

BIG = "word " * 400
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
FUNCTION = {"name": "f", "description": BIG}
CALL = {"name": "f", "arguments": BIG}


def chat(*messages: dict[str, Any], **fields: Any) -> ChatCall:
    return ChatCall({"messages": list(messages), **fields})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": BIG}],
        [{"type": "text", "text": BIG[:99]}, IMAGE, {"type": "input_text", "text": BIG[99:]}],
        [{"type": "refusal", "refusal": BIG}],
        [BIG],
    ],
)
def test_parts_count_like_the_same_text_and_images_do_not(content: Any) -> None:
    assert guessed([chat(user(content))]) == guessed([chat(user(BIG))]) == estimate(BIG)


@pytest.mark.parametrize("content", [None, 5, [5, None, {"type": "text", "text": 5}, IMAGE], []])
def test_what_is_no_text_counts_nothing(content: Any) -> None:
    assert guessed([chat(user(content))]) == 0
    assert least_text(chat(user(content))) == ""


@pytest.mark.parametrize(
    "call",
    [
        chat(user("x"), tools=[{"type": "function", "function": FUNCTION}]),
        chat(user("x"), functions=[FUNCTION]),
        chat({"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": CALL}]}),
        chat({"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"input": BIG}}]}),
        chat({"role": "assistant", "tool_calls": None, "function_call": CALL}),
    ],
)
def test_tools_and_calls_are_read_too(call: ChatCall) -> None:
    assert guessed([call]) > estimate(BIG)
    assert BIG not in least_text(call)  # how a template writes them is not known


def test_numbers_beyond_64_bits_are_text_as_well() -> None:
    [_, tool] = prompt_texts(chat(user("x"), tools=[{"maximum": 10**30}]))
    assert tool == '{"maximum":1' + "0" * 30 + "}"


def test_a_prompt_counts_once_and_every_text_of_an_embedding() -> None:
    assert guessed(for_choices(chat(user(BIG)), 3)) == estimate(BIG)
    assert guessed([PromptCall("abcd", {}), PromptCall("abcd", {}, choice=1), PromptCall("abcd", {})]) == 2
    assert guessed([EmbedCall(("abcd", "abcd")), EmbedCall(("abcd",))]) == 3
    assert guessed([]) == 0


def test_the_least_of_a_prompt_is_what_no_template_leaves_out() -> None:
    said = chat(
        user(" \n one "),
        {"role": "assistant", "content": "<think>\nlong\n</think>\n\ntwo"},
        {"role": "assistant", "content": None},
        user([{"type": "text", "text": "three"}, IMAGE]),
    )
    assert least_text(said) == "one\ntwo\nthree"
    assert least_text(PromptCall(" as it is ", {})) == " as it is "


def test_the_most_that_an_answer_may_have() -> None:
    assert most_asked(PromptCall("x", {"max_tokens": 3})) == 3
    assert most_asked(chat(user("x"), max_tokens=3)) == 3
    assert most_asked(chat(user("x"), max_tokens=3, max_completion_tokens=4)) == 4
    assert most_asked(PromptCall("x", {})) is most_asked(chat(user("x"))) is most_asked(EmbedCall(())) is None


@pytest.mark.parametrize(
    ("first", "second", "source"),
    [
        ("upstream", "upstream", "upstream"),
        ("upstream", "tokenizer", "tokenizer"),
        ("tokenizer", "estimate", "estimate"),
        ("estimate", "upstream", "estimate"),
    ],
)
def test_a_sum_is_as_exact_as_the_less_exact(first: str, second: str, source: str) -> None:
    assert summed(Usage(1, 2, first), Usage(3, 4, second)) == Usage(4, 6, source)
