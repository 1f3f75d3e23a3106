"""The playground's programs: copied, run as they stand, they ask the model for what the playground asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.actor import MODEL, Actor
from tests.console.browser.chatting import answered, playground, say, settings, stop, unfold
from tests.console.browser.conftest import Opens
from tests.console.browser.house import Place

pytestmark = pytest.mark.browser

BOUND = 60.0  # seconds that a program gets; importing LangChain takes most of it
NASTY = """It's "quoted" \\ back\\slash \\n $HOME `id` $(id) !! %s {x} '''three''' \"\"\"six\"\"\"
second line\ttab ünï 你好 \U0001f600 \u2028 <|im_end|> # -d @file"""
SCHEMA = '{"type": "object", "properties": {"it\'s": {"type": ["string", "null"]}, "ok": {"const": true}}}'


def copied(page: Page, language: str) -> str:
    """What the button puts on the clipboard."""
    page.get_by_role("tab", name="Code", exact=True).click()
    page.get_by_role("tab", name=language, exact=True).click()
    shown = page.get_by_label(f"{language} program").text_content()
    page.get_by_role("button", name=f"Copy as {language}").click()
    expect(page.locator(".toast").last).to_contain_text("Copied")
    text = str(page.evaluate("navigator.clipboard.readText()"))
    assert text == shown
    return text


def run(command: list[str], at: Place, folder: Path) -> str:
    """What it prints. Its environment is a person's with a key, and without a proxy."""
    environment = {**os.environ, "OPENAI_API_KEY": at.key, "NO_PROXY": "*"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=BOUND, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def same(body: dict[str, Any]) -> dict[str, Any]:
    """As it is compared: LangChain has the newer name of the limit, and says some defaults."""
    fields = dict(body)
    if limit := fields.pop("max_completion_tokens", None):
        fields["max_tokens"] = limit
    return {name: value for name, value in fields.items() if value is not None}


def told(stream: str) -> str:
    """The text of an event stream."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.fixture
def asked(opens: Opens, stage: tuple[Place, Actor]) -> Page:
    """A chat in which everything was hard to quote."""
    at, actor = stage
    actor.says("Quoted ", "well: 'ü' 你好.")
    page = playground(opens, at, MODEL, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("System prompt").fill(NASTY)
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Max tokens").fill("100")
    page.get_by_label("Seed").fill("7")
    unfold(page, "More parameters")
    page.get_by_label("Top k").fill("40")
    page.get_by_label("Min p").fill("0.05")
    stop(page, 'it\'s "over" $now\\n')
    say(page, NASTY)
    answered(page, "Quoted well: 'ü' 你好.")
    return page


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_curl_in_a_shell_asks_for_the_same(
    shell: str, stream: bool, asked: Page, stage: tuple[Place, Actor], tmp_path: Path
) -> None:
    at, actor = stage
    settings(asked)
    for name in (shell, "curl"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    asked.get_by_label("Stream the answer").set_checked(stream)
    wanted = actor.asked[-1]
    printed = run([shell, "-c", copied(asked, "curl")], at, tmp_path)
    text = told(printed) if stream else json.loads(printed)["choices"][0]["message"]["content"]
    assert text == "Quoted well: 'ü' 你好."
    assert without_stream(actor.asked[-1]) == without_stream(wanted)


def without_stream(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in same(body).items() if name not in ("stream", "stream_options")}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("language", ["Python", "LangChain"])
def test_the_program_asks_for_the_same_and_prints_the_answer(
    language: str, stream: bool, asked: Page, stage: tuple[Place, Actor], tmp_path: Path
) -> None:
    at, actor = stage
    settings(asked)
    asked.get_by_label("Stream the answer").set_checked(stream)
    wanted = actor.asked[-1]
    text = copied(asked, language)
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    printed = run([sys.executable, "program.py"], at, tmp_path)
    assert printed == "Quoted well: 'ü' 你好.\n"
    assert without_stream(actor.asked[-1]) == without_stream(wanted)
    assert ("stream" in text) is stream


@pytest.mark.parametrize("language", ["curl", "Python", "LangChain"])
def test_tools_and_a_schema_are_in_the_program(
    language: str, opens: Opens, stage: tuple[Place, Actor], tmp_path: Path
) -> None:
    at, actor = stage
    actor.says("Called ", "none.")
    page = playground(opens, at, MODEL, permissions=["clipboard-read", "clipboard-write"])
    unfold(page, "Tools")
    page.get_by_role("button", name="Insert an example").click()
    page.get_by_label("Tool choice").select_option("get_weather")
    unfold(page, "Response format")
    page.get_by_label("Format", exact=True).select_option("JSON schema")
    page.get_by_label("JSON schema").fill(SCHEMA)
    say(page, "hello")
    answered(page, "Called none.")
    wanted = actor.asked[-1]
    assert wanted["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert wanted["response_format"]["json_schema"]["schema"] == json.loads(SCHEMA)
    text = copied(page, language)
    command = ["sh", "-c", text] if language == "curl" else [sys.executable, "-c", text]
    printed = run(command, at, tmp_path)
    assert (told(printed) if language == "curl" else printed.strip()) == "Called none."
    assert without_stream(actor.asked[-1]) == without_stream(wanted)


@pytest.mark.parametrize("language", ["Python", "LangChain"])
def test_a_call_of_a_tool_is_printed_as_it_was_written(
    language: str, opens: Opens, stage: tuple[Place, Actor], tmp_path: Path
) -> None:
    at, actor = stage
    actor.says("")
    actor.pieces = [_called("get_weather", '{"ci'), _called(None, 'ty": "Par'), _called(None, 'is"}')]
    page = playground(opens, at, MODEL, permissions=["clipboard-read", "clipboard-write"])
    unfold(page, "Tools")
    page.get_by_role("button", name="Insert an example").click()
    page.get_by_label("Message", exact=True).fill("hello")
    text = copied(page, language)
    assert run([sys.executable, "-c", text], at, tmp_path) == 'get_weather{"city": "Paris"}\n'


def _called(name: str | None, arguments: str) -> dict[str, Any]:
    """A piece of a call; the first has the name."""
    head = {"id": "call_1", "type": "function"} if name else {}
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": 0, **head, "function": function}]}


@pytest.mark.parametrize("phone", [False, True], ids=["wide", "phone"])
@pytest.mark.parametrize("language", ["curl", "Python", "LangChain"])
def test_the_button_that_copies_is_seen_however_long_a_line_is(
    language: str, phone: bool, opens: Opens, stage: tuple[Place, Actor]
) -> None:
    at, _ = stage
    page = playground(opens, at, MODEL, phone=phone)
    page.get_by_label("Message", exact=True).fill("word " * 100)
    panel = page.get_by_role("complementary", name="Request")
    if phone:
        page.get_by_role("button", name="Settings").click()
        panel = page.get_by_role("dialog")
    panel.get_by_role("tab", name="Code", exact=True).click()
    panel.get_by_role("tab", name=language, exact=True).click()
    button = panel.get_by_role("button", name=f"Copy as {language}")
    outer, inner = panel.bounding_box(), button.bounding_box()
    assert outer is not None and inner is not None
    assert outer["x"] <= inner["x"] and inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    assert inner["x"] + inner["width"] <= page.evaluate("innerWidth")
    middle = [inner["x"] + inner["width"] / 2, inner["y"] + inner["height"] / 2]
    assert button.evaluate("(own, [x, y]) => own.contains(document.elementFromPoint(x, y))", middle)


def test_no_program_holds_a_secret(asked: Page, stage: tuple[Place, Actor]) -> None:
    at, _ = stage
    texts = [copied(asked, language) for language in ("curl", "Python", "LangChain")]
    [cookie] = asked.context.cookies()
    assert not [text for text in texts for secret in (at.key, at.admin, cookie["value"]) if secret in text]
