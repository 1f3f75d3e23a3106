"""Kind ``demo``: fixed answers, in turn, as a container that streams would give them."""

import pytest
from pydantic import ValidationError

from gateway.core.call import PromptCall
from gateway.core.events import Finish, Text, Usage
from gateway.upstreams.demo import DemoConfig, DemoUpstream
from tests.upstreams.calling import Outcome, ask, chat, outcome

GREETING = "你好！I am fine."


async def say(upstream: DemoUpstream, **arguments: object) -> Outcome:
    return await outcome(upstream, PromptCall("two words", arguments))


async def test_answers_are_given_in_turn() -> None:
    upstream = DemoUpstream("m", DemoConfig(responses=("a", "b")))
    assert [(await say(upstream)).text for _ in range(5)] == ["a", "b", "a", "b", "a"]


async def test_a_piece_is_a_word_or_a_chinese_character() -> None:
    got = await say(DemoUpstream("m", DemoConfig(responses=(GREETING,))))
    pieces = [event.text for event in got.events if isinstance(event, Text)]
    assert pieces == ["你", "好", "！", "I", " am", " fine."]
    assert got.finish == Finish("stop", Usage(2, 6))


async def test_pieces_with_a_delay_come_one_by_one() -> None:
    got = await say(DemoUpstream("m", DemoConfig(responses=("a b c",), delay=0.001)))
    assert (got.text, got.batches) == ("a b c", 4)
    assert (await say(DemoUpstream("m", DemoConfig(responses=("a b c",))))).batches == 1


async def test_max_tokens_counts_pieces() -> None:
    upstream = DemoUpstream("m", DemoConfig(responses=("a b c",)))
    assert (await say(upstream, max_tokens=2)).finish == Finish("length", Usage(2, 2))
    assert (await say(upstream, max_tokens=3)).finish.reason == "stop"


@pytest.mark.parametrize(
    ("fail", "wanted", "text"),
    [
        (503, (503, "upstream_unavailable"), ""),
        (429, (429, "upstream_rate_limited"), ""),
        ({"code": "out_of_memory"}, (503, "out_of_memory"), ""),
        ({"status": 400, "code": "context_length_exceeded"}, (400, "context_length_exceeded"), ""),
        ({"after": 2}, (502, "upstream_error"), "a b"),
    ],
)
async def test_it_fails_as_it_is_told(fail: object, wanted: tuple[int, str], text: str) -> None:
    config = DemoConfig.model_validate({"responses": ["a b c"], "fail": fail})
    for delay in (0, 0.001):
        got = await say(DemoUpstream("m", config.model_copy(update={"delay": delay})))
        assert got.text == text
        assert (got.failure.status, got.failure.code) == wanted


async def test_it_answers_chats_too() -> None:
    assert (await outcome(DemoUpstream("m", DemoConfig(responses=("a",))), chat())).text == "a"


def test_the_body_is_the_contracts() -> None:
    assert (
        DemoUpstream("m", DemoConfig()).body(ask(max_tokens=1))
        == b'{"prompt":"the secret prompt","max_tokens":1}'
    )


@pytest.mark.parametrize(
    "config",
    [{"responses": []}, {"delay": -1}, {"fail": 200}, {"fail": {"state": 1}}, {"fail": True}, {"x": 1}],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DemoConfig.model_validate(config)
