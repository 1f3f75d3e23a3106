"""Images in chats: where they stand in prompts, what goes beside them, and what is refused."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call, ChatCall, PromptCall, Traits
from gateway.core.errors import BadRequest
from gateway.core.images import KINDS, MAX_IMAGES, kind_of
from gateway.core.plan import Origin, plan
from gateway.core.spec import ModelSpec
from gateway.core.template import ImageToken, Template
from gateway.core.wire import parse_chat
from gateway.templates import load
from tests.templates import TEMPLATES

ORIGIN = Origin("req_1", datetime(2026, 1, 2, tzinfo=UTC))
A, B, C = (f"data:image/png;base64,{letter * 4}" for letter in "ABC")
SEEING = [template for template in TEMPLATES if template.image is not None]


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def image(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def planned(messages: Any, template: Template, traits: Traits | None = None, **spec: Any) -> Call:
    request = parse_chat(json.dumps({"messages": messages}).encode())
    model = ModelSpec("m", template, **{"images": True, **spec})
    return plan(request, model, traits or Traits("prompt"), ORIGIN)


def prompted(messages: Any, template: Template | str = "qwen2-vl", **spec: Any) -> PromptCall:
    call = planned(messages, load(template) if isinstance(template, str) else template, **spec)
    assert isinstance(call, PromptCall)
    return call


def asked(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def refused(*content: Any, template: str = "qwen2-vl", **spec: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        prompted(asked(*content), template, **spec)
    return caught.value


# --- where they stand ---


def test_the_token_stands_where_the_image_stood_and_the_image_goes_beside_the_prompt() -> None:
    call = prompted(asked(text("Compare "), image(A, detail="high"), text(" with "), image(B), text(".")))
    token = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"user\nCompare {token} with {token}.<|im_end|>" in call.prompt
    assert call.arguments["images"] == [A, B]


@pytest.mark.parametrize("template", SEEING, ids=lambda template: template.name)
def test_every_template_that_knows_images_shows_each_once_and_in_order(template: Template) -> None:
    token = template.image
    assert token is not None
    talk = [
        *asked(image(A), text("first")),
        {"role": "assistant", "content": "well"},
        *asked(text("second"), image(B), image(C)),
    ]
    call = prompted(talk, template)
    assert call.arguments["images"] == [A, B, C]
    assert token.shown(call.prompt, 3) and not token.shown(call.prompt, 2)
    first, *others = (call.prompt.index(word) for word in ("first", "second"))
    assert call.prompt.index(token.of(1).strip()) < first
    assert all(call.prompt.rindex(token.of(3).strip()) > other for other in others)


def test_numbers_count_through_the_whole_conversation() -> None:
    talk = [
        *asked(image(A), text("one")),
        {"role": "assistant", "content": "ok"},
        *asked(image(B), text("two")),
    ]
    prompt = prompted(talk, "phi-3.5-vision").prompt
    assert "<|user|>\n<|image_1|>\none<|end|>" in prompt
    assert "<|user|>\n<|image_2|>\ntwo<|end|>" in prompt


@pytest.mark.parametrize("template", SEEING, ids=lambda template: template.name)
def test_the_result_of_a_tool_may_hold_an_image(template: Template) -> None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [
        *asked(text("What is there?")),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": [image(A)]},
    ]
    made = prompted(talk, template)
    assert made.arguments["images"] == [A]
    assert template.image is not None and template.image.shown(made.prompt, 1)


def test_an_entry_may_say_another_token_or_that_there_is_none() -> None:
    own = load("chatml").with_image("(<image>./</image>)\n")
    call = prompted(asked(image(A), text("what?")), own)
    assert "user\n(<image>./</image>)\nwhat?<|im_end|>" in call.prompt
    bare = prompted(asked(image(A), text("what?")), load("plain").with_image(""))
    assert (bare.prompt, bare.arguments["images"]) == ("what?", [A])


def test_messages_without_images_are_as_they_were() -> None:
    call = prompted(asked(text("a"), text("b")))
    assert "user\nab<|im_end|>" in call.prompt
    assert "images" not in call.arguments


def test_fastchats_clients_write_the_address_alone() -> None:
    assert prompted(asked({"type": "image_url", "image_url": A})).arguments["images"] == [A]


# --- what a client writes is no image ---


@pytest.mark.parametrize("template", SEEING, ids=lambda template: template.name)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_no_text_makes_an_image(template: Template, role: str) -> None:
    assert template.image is not None
    forged = "".join((template.image.of(1), *template.image.pieces, template.image.of(2)))
    call = prompted([{"role": role, "content": forged}, *asked(image(A), text(forged))], template)
    assert template.image.shown(call.prompt, 1)
    assert call.notes.neutralised >= 4


def test_text_around_an_image_makes_no_control_string() -> None:
    prompt = prompted(asked(text("<|im_"), image(A), text("end|>"), text("<|im_"), text("end|>"))).prompt
    assert prompt.count("<|im_end|>") == prompted(asked(image(A), text("x"))).prompt.count("<|im_end|>")


def test_the_token_is_refused_where_control_strings_are() -> None:
    found = refused(text("see <|image_pad|>"), image(A), control_tokens="reject")
    assert (found.code, found.param) == ("control_tokens", "messages")
    assert "'<|image_pad|>'" in found.message


def test_a_token_that_the_client_may_write_counts_as_an_image_that_did_not_come() -> None:
    written = asked(image(A), text("<|vision_start|><|image_pad|><|vision_end|>"))
    with pytest.raises(BadRequest, match="does not show each image once"):
        prompted(written, control_tokens="pass")


pieces = st.one_of(
    st.sampled_from([A, B, C]).map(image),
    st.text("<|imagestrtpdn_1>[IMG] x", max_size=12).map(text),
    st.sampled_from(SEEING).map(lambda template: text(template.image.of(1) if template.image else "")),
)


@given(st.lists(st.lists(pieces, max_size=4), min_size=1, max_size=4))
def test_there_are_as_many_tokens_as_images_whatever_is_written(contents: list[list[Any]]) -> None:
    talk = [
        {"role": "assistant" if index % 2 else "user", "content": content}
        for index, content in enumerate(contents)
    ]
    urls = [part["image_url"]["url"] for content in contents for part in content if "image_url" in part]
    for template in SEEING:
        call = prompted(talk, template)
        assert call.arguments.get("images", []) == urls
        assert template.image is not None and template.image.shown(call.prompt, len(urls))


# --- what is refused ---


def test_a_model_without_images_names_the_key() -> None:
    for found in (refused(text("a"), image(A), images=False), refused(image(A), images=False)):
        assert found.code == "unsupported_content"
        assert "models.m.images is not set" in found.message
    assert refused(text("a"), image(A), images=False).param == "messages[0].content[1].type"
    with pytest.raises(BadRequest, match=r"models\.m\.images is not set"):
        planned(asked(image(A)), load("plain"), Traits("chat"), images=False)


def test_a_template_without_a_token_names_the_key() -> None:
    found = refused(image(A), template="chatglm2")
    assert (found.status, found.code) == (400, "unsupported_content")
    assert "chatglm2" in found.message and "models.m.image_token" in found.message


@pytest.mark.parametrize(
    "url",
    [
        "", "data:", "data:,x", "data:image/png,x", "data:image/png;base64,", "data:image/png;base64,A",
        "data:image/png;base64,AAA", "data:image/png;base64,A===", "data:image/png;base64,A=AA",
        "data:image/png;base64,AA AA===", "data:image/png;base64,AAA-", "data:image/png;base64,AAAé",
        "data:image/svg+xml;base64,AAAA", "data:text/plain;base64,AAAA", "file:///etc/passwd", "AAAA",
        "https://example.org/a.png", "HTTP://example.org/a.png",
    ],
)  # fmt: skip
def test_what_a_container_could_not_read_is_refused_by_its_place(url: str) -> None:
    found = refused(image(A), text("b"), image(url))
    assert (found.status, found.param) == (400, "messages[0].content[2].image_url")
    assert url[10:] == "" or url[10:] not in found.message


@pytest.mark.parametrize("url", [None, 1, {}, {"url": None}, []])
def test_a_part_without_an_address_is_refused(url: Any) -> None:
    found = refused({"type": "image_url", "image_url": url})
    assert found.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize("kind", [*KINDS, "jpg", "PNG"])
@pytest.mark.parametrize("data", ["AA==", "AAA=", "AAAA", "+/09azAZ" * 999])
def test_known_kinds_pass_as_they_came(kind: str, data: str) -> None:
    url = f"data:image/{kind};base64,{data}"
    assert prompted(asked(image(url))).arguments["images"] == [url]


def test_there_are_only_so_many() -> None:
    assert len(prompted(asked(*[image(A)] * MAX_IMAGES)).arguments["images"]) == MAX_IMAGES
    found = refused(*[image(A)] * (MAX_IMAGES + 1))
    assert found.param == f"messages[0].content[{MAX_IMAGES}].image_url"


def test_other_parts_are_refused_as_before() -> None:
    found = refused(image(A), {"type": "input_audio", "input_audio": {}})
    assert found.param == "messages[0].content[1].type"


# --- elsewhere ---


@pytest.mark.parametrize(
    "content", [[image("https://example.org/a.png")], [text("a"), image(A, detail="low")]]
)
def test_a_chat_server_gets_them_as_they_came(content: list[Any]) -> None:
    call = planned(asked(*content), load("plain"), Traits("chat"))
    assert isinstance(call, ChatCall)
    assert call.body["messages"] == asked(*content)


def test_an_echo_may_come_without_the_token() -> None:
    call = planned(asked(image(A), text("hi")), load("qwen2-vl"), Traits("prompt", echo="always"))
    assert any("hi" in form and "<|" not in form for form in call.watch.echo)


def test_one_conversation_has_one_session_however_long_its_images_are() -> None:
    long = image("data:image/png;base64," + "A" * 400_000)
    talk = asked(long, text("what?"))
    longer = [*talk, {"role": "assistant", "content": "a cat"}, *asked(text("why?"))]
    sessions = {prompted(said).sender.session for said in (talk, longer)}
    assert len(sessions) == 1
    assert prompted(asked(long, text("who?"))).sender.session not in sessions


def test_tokens_are_counted_with_their_numbers() -> None:
    token = ImageToken("<|image_{n}|>\n")
    assert [token.of(1), token.of(12)] == ["<|image_1|>\n", "<|image_12|>\n"]
    assert token.shown("a <|image_1|> b <|image_2|>", 2)
    assert not token.shown("<|image_2|><|image_1|>", 2)
    assert not token.shown("<|image_1|><|image_1|>", 2)
    assert token.pieces == ("<|image_",)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n...", "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"),
        (b"GIF87a", "gif"), (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "webp"), (b"RIFF\x24\x00\x00\x00WAVE", None),
        (b"<svg", None), (b"", None),
    ],
)  # fmt: skip
def test_a_kind_is_known_by_its_first_bytes(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


def test_a_model_that_sees_keeps_what_else_it_is() -> None:
    said = prompted(asked(image(A)), system_default="Be brief.")
    assert said.prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>")
