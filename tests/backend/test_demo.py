"""The demo engine: its rules, and that the same request always gives the same answer."""

from __future__ import annotations

import asyncio
import json
import math
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_backend.engine import (
    BadRequest,
    ContextLengthExceeded,
    Done,
    Embeds,
    Generates,
    Piece,
    Request,
    Usage,
)
from modal_backend.engines import ENGINES, make_engine
from modal_backend.engines.demo import Demo
from modal_backend.engines.demo.pictures import told
from modal_backend.engines.demo.questions import TURNS, question
from modal_backend.engines.demo.replies import GREETING, MOST, SHOWN, reply
from modal_backend.engines.demo.tokens import logprob, tokens
from modal_backend.engines.demo.vectors import DIMENSIONS, vector


def answer(**request: Any) -> tuple[list[Piece], Done]:
    """The pieces and the end of one answer without delay."""

    async def collect() -> list[Piece | Done]:
        return [item async for item in Demo(delay=0).generate(Request(**request))]

    *made, end = asyncio.run(collect())
    assert isinstance(end, Done)
    assert all(isinstance(piece, Piece) for piece in made)
    return made, end  # type: ignore[return-value]


def said(prompt: str, **request: Any) -> str:
    return "".join(piece.text for piece in answer(prompt=prompt, **request)[0])


def test_it_is_an_engine_that_generates_and_embeds() -> None:
    engine = make_engine("demo", {"delay": 0})
    assert isinstance(engine, Generates)
    assert isinstance(engine, Embeds)
    assert engine.fault() is None
    assert "no model runs" in engine.about.note


def test_an_unknown_engine_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(ValueError, match=f"there is no engine 'x'; choose one of: {', '.join(ENGINES)}"):
        make_engine("x", {})


# --- what it says ---


def test_the_greeting_of_the_old_demo() -> None:
    assert GREETING == "你好！我是人工智能助手 ChatGLM2-6B，很高兴见到你，欢迎问我任何问题。"
    assert said("[Round 1]\n\n问：你好\n\n答：") == GREETING
    assert said("你好") == GREETING


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("你好！", GREETING),
        ("count to 5", "1 2 3 4 5"),
        ("Please count from 1 to 3, slowly.", "1 2 3"),
        ("从1数到3", "1 2 3"),
        ("请数到 4", "1 2 3 4"),
        ("count to 0", ""),
        (f"count to {MOST + 1}", f"I count to {MOST} at most."),
        ("数到99999999999999999999", f"最多数到{MOST}。"),
        ("repeat: some text", "some text"),
        ("Please repeat after me: a\nb", "a\nb"),
        ("Echo this exactly: {x} %s", "{x} %s"),
        ("重复：任意文字", "任意文字"),
        ("请复述这句话: 好", "好"),
    ],
)
def test_a_rule(asked: str, wanted: str) -> None:
    assert reply(asked) == wanted


@pytest.mark.parametrize("asked", ["Who are you?", "你是谁？", "Where is 巴黎?", "repeat nothing", "", "🗼"])
def test_what_no_rule_fits_is_shown_back_with_a_word_of_honesty(asked: str) -> None:
    answered = reply(asked)
    assert f"“{asked}”" in answered
    honest = "没有模型在运行" if any("\u4e00" <= char <= "\u9fff" for char in asked) else "No model runs here"
    assert honest in answered


def test_a_long_question_is_shown_in_part() -> None:
    assert f"“{'x' * SHOWN}…”" in reply("x" * SHOWN + "y")


@pytest.mark.parametrize(
    ("asked", "images", "wanted"),
    [
        ("repeat: x", 1, "(1 image received: 1 byte. The demo engine cannot see.) x"),
        ("<image>\nrepeat: x", 1, "(1 image received: 1 byte. The demo engine cannot see.) x"),
        ("repeat: x", 2, "(2 images received: 1 byte; 1 byte. The demo engine cannot see.) x"),
        ("重复：好", 2, "（收到2张图片：1 byte; 1 byte。演示引擎看不到它们。）好"),
    ],
)
def test_images_are_acknowledged(asked: str, images: int, wanted: str) -> None:
    assert said(asked, images=("data:image/png;base64,AA==",) * images) == wanted


# Files that Pillow wrote, 3 wide and 2 high; the JPEG without what follows its size.
PICTURES = {
    "PNG": "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001049444154789c63fccf0005"
    "4c3006030013290103f0d807840000000049454e44ae426082",
    "GIF": "47494638376103000200810000ff00000000000000000000002c00000000030002000008060001081c1810003b",
    "JPEG": f"ffd8ffe000104a46494600010100000100010000ffdb004300{'ff' * 64}ffc0001108000200030301220002",
    "WebP": "524946461c000000574542505650384c0f0000002f024000000710fd8ffe0722a2ff0100",
}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_can_be_told_of_an_image_is_told(kind: str) -> None:
    data = bytes.fromhex(PICTURES[kind])
    url = f"data:image/{kind.lower()};base64,{b64encode(data).decode()}"
    assert told([url]) == (f"{kind}, 3 x 2, {len(data)} bytes",)
    for end in range(len(data)):  # a file that was cut is no accident
        told([f"data:image/png;base64,{b64encode(data[:end]).decode()}"])


@pytest.mark.parametrize("url", ["data:,x", "data:image/png;base64,A", "data:image/png;base64,?===", "data:"])
def test_what_is_no_data_url_in_base64_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match=r"images\[1\]"):
        told(["data:image/png;base64,AA==", url])


# --- whose words it answers ---

PROMPTS = [
    "[Round 1]\n\n问：Hi\n\n答：Hello!\n\n[Round 2]\n\n问：{}\n\n答：",
    "[Round 0]\n问：{}\n答：",
    "<|user|>\n{}<|assistant|>",
    "<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\n{}</s>\n<|assistant|>\n",
    "<|prompter|>{}<|endoftext|><|assistant|>",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "<|im_start|>user<|im_sep|>{}<|im_end|><|im_start|>assistant<|im_sep|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{} [/INST]",
    "[INST] Hi [/INST] Hello! </s><s>[INST] {} [/INST]",
    "Be brief.<reserved_106>{}<reserved_107>",
    "<｜begin▁of▁sentence｜><｜User｜>{}<｜Assistant｜><think>\n",
    "<|start|>user<|message|>{}<|end|><|start|>assistant",
    "<s><|User|>:{}<eoh>\n<|Bot|>:",
    "<|USER|>{}<|ASSISTANT|>",
    "<|prompt|>{}</s><|answer|>",
    "\n<human>: {}\n<bot>:",
    "GPT4 Correct User: {}<|end_of_turn|>GPT4 Correct Assistant:",
    "A chat. USER: Hi ASSISTANT: Hello!</s>USER: {} ASSISTANT:",
    "BEGINNING OF CONVERSATION: USER: {} GPT:",
    "User: Hi\nAssistant: Hello!\nUser: {}\nAssistant:",
    "A chat.\n\nHuman: <s>{}</s>Assistant: <s>",
    "A chat.\n\n### Human: {}\n### Assistant:",
    "### User\n{}\n\n### Assistant\n",
    "Below is an instruction.\n\n### Instruction:\nHi\n\n### Response:\nHello!### End\n\n"
    "### Instruction:\n{}\n\n### Response:\n",
    "User: {}\nFalcon:",
    "{}",
    "  {}\n",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("asked", ["Who are you?", "你好", "line one\n\n  line two {x} %s"])
def test_it_answers_the_last_user_message(prompt: str, asked: str) -> None:
    assert question(prompt.replace("{}", asked)) == asked


def test_every_template_that_it_knows_is_tried() -> None:
    for assistant, users in TURNS.items():
        for user in users:
            assert question(f"{user}first{assistant}second{user}third{assistant}") == "third"


def test_words_that_look_like_a_turn_stay_in_a_bare_prompt() -> None:
    assert question("Explain what ASSISTANT: means") == "Explain what ASSISTANT: means"
    assert question("Explain what this means: ASSISTANT:") == "Explain what this means: ASSISTANT:"


# --- how it says it ---


@given(text=st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert all(tokens(text))


def test_a_token_is_a_word_or_a_character() -> None:
    assert list(tokens("Two words, 你好 42!\n")) == ["Two", " words", ",", " ", "你", "好", " 42", "!", "\n"]


def test_usage_counts_what_is_said() -> None:
    made, end = answer(prompt="repeat: one two")
    assert [piece.usage for piece in made] == [Usage(4, 1), Usage(4, 2)]
    assert end == Done("stop", Usage(4, 2))


@pytest.mark.parametrize(("max_tokens", "reason"), [(1, "length"), (4, "length"), (5, "stop"), (6, "stop")])
def test_max_tokens(max_tokens: int, reason: str) -> None:
    made, end = answer(prompt="repeat: a b c d e", max_tokens=max_tokens)
    assert len(made) == min(max_tokens, 5)
    assert end == Done(reason, Usage(7, len(made)))


def test_a_prompt_beyond_the_context_is_refused() -> None:
    async def ask(words: int) -> object:
        return await anext(Demo(delay=0, context_length=5).generate(Request(prompt="a " * words)))

    with pytest.raises(ContextLengthExceeded, match="maximum context length is 5 tokens"):
        asyncio.run(ask(6))


def test_logprobs_are_made_up_the_same_each_time() -> None:
    made, _ = answer(prompt="你好", logprobs=3)
    assert made == answer(prompt="你好", logprobs=3)[0]
    for piece in made:
        (entry,) = piece.logprobs
        assert entry.token == piece.text
        assert entry.bytes == piece.text.encode()
        assert entry.top[0].token == entry.token
        assert len({other.token for other in entry.top}) == 3
    assert all(piece.logprobs == () for piece in answer(prompt="你好")[0])


@given(token=st.text(), position=st.integers(0, 10_000), alternatives=st.integers(0, 20))
def test_probabilities_are_probabilities(token: str, position: int, alternatives: int) -> None:
    entry = logprob(token, position, alternatives)
    assert len(entry.top) == alternatives
    chances = [math.exp(other.logprob) for other in entry.top] or [math.exp(entry.logprob)]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1.0 + 1e-9


def test_a_schema_is_answered_by_a_value_for_it() -> None:
    properties = {"名": {"enum": ["好"]}, "n": {"minimum": 2}}
    schema = {"type": "object", "properties": properties, "required": ["名"]}
    assert json.loads(said("anything", json_schema=schema)) == {"名": "好"}


# --- embeddings ---


def embedded(*texts: str) -> tuple[tuple[float, ...], ...]:
    return asyncio.run(Demo().embed(texts)).vectors


def nearness(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@given(text=st.text())
def test_a_vector_has_length_one(text: str) -> None:
    made = vector(text)
    assert len(made) == DIMENSIONS
    assert math.isclose(nearness(made, made), 1.0)
    assert made == vector(text)


def test_a_vector_is_the_same_on_every_machine() -> None:
    # 你 and 好 and their pair: three n-grams, so three places of equal size.
    made = vector("你好")
    assert {place: round(value, 3) for place, value in enumerate(made) if value} == {
        60: 0.577,
        98: 0.577,
        226: -0.577,
    }


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("the cat sat on the mat", "a cat sat on a mat", "quarterly revenue grew by 4 %"),
        ("人工智能改变世界", "人工智能正在改变世界", "今天的天气很好"),
        ("HELLO there", "hello there!", "goodbye"),
    ],
)
def test_similar_texts_are_nearer(text: str, near: str, far: str) -> None:
    here, there, yonder = embedded(text, near, far)
    assert nearness(here, there) > nearness(here, yonder) + 0.2


def test_embeddings_are_counted() -> None:
    assert asyncio.run(Demo().embed(("one two", "", "好"))).usage == Usage(3)
