"""Dates and options of the templates that have them."""

from datetime import datetime

import pytest

from gateway.templates import load

HELLO = [{"role": "user", "content": "Hello"}]
NOW = datetime(2026, 11, 20)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("llama-3.1", "Today Date: 26 Jul 2024\n"),  # as published: the model was trained with it
        ("llama-3.2", "Today Date: 20 Nov 2026\n"),
        ("gpt-oss", "Current date: 2026-11-20\n"),
    ],
)
def test_the_date_is_the_one_passed_in(name: str, line: str) -> None:
    assert line in load(name).render(HELLO, now=NOW)


def test_a_date_may_be_given_as_an_option() -> None:
    for name in ("llama-3.1", "llama-3.2"):
        prompt = load(name).render(HELLO, options={"date_string": "1 Jan 1970"}, now=NOW)
        assert "Today Date: 1 Jan 1970\n" in prompt


def test_without_a_time_no_date_is_made_up() -> None:
    assert "Current date" not in load("gpt-oss").render(HELLO)


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, "<|im_start|>assistant\n"),
        ({"enable_thinking": True}, "<|im_start|>assistant\n"),
        ({"enable_thinking": False}, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_qwen3_may_be_told_not_to_think(options: dict[str, bool], end: str) -> None:
    assert load("qwen3").render(HELLO, options=options) == f"<|im_start|>user\nHello<|im_end|>\n{end}"


def test_earlier_thinking_is_left_out() -> None:
    said = [
        *HELLO,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi."},
        {"role": "user", "content": "And you?"},
    ]
    for name in ("qwen3", "deepseek-r1", "deepseek-v3"):
        prompt = load(name).render(said)
        assert "Hi." in prompt
        assert "hm" not in prompt


def test_reasoning_belongs_to_the_calls_that_no_answer_has_followed() -> None:
    call = {"id": "abc123def", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"}
    result = {"role": "tool", "tool_call_id": "abc123def", "content": "r"}
    answer = {"role": "assistant", "content": "Hi."}
    for name in ("qwen3", "gpt-oss"):
        assert "hm" in load(name).render([*HELLO, calling, result])
        assert "hm" not in load(name).render([*HELLO, calling, result, answer, *HELLO])


def test_gpt_oss_takes_effort_and_identity() -> None:
    options = {"reasoning_effort": "high", "model_identity": "You are X."}
    prompt = load("gpt-oss").render(HELLO, options=options)
    assert prompt.startswith("<|start|>system<|message|>You are X.\n")
    assert "Reasoning: high\n" in prompt
    assert "Reasoning: medium\n" in load("gpt-oss").render(HELLO)


def test_plain_sends_a_single_user_message_as_it_is() -> None:
    template = load("plain")
    alone = "Identify yourself, bot!\r\n "
    assert template.render([{"role": "user", "content": alone}]) == alone
    transcript = template.render([{"role": "system", "content": "Be brief."}, *HELLO])
    assert transcript == "Be brief.\n\nUser: Hello\nAssistant:"
    assert template.stops == ("\nUser:",)
