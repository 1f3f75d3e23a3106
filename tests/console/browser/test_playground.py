"""The playground: a chat as a person has it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser.actor import MODEL, Actor
from tests.console.browser.chatting import BOUND, answered, answers, playground, say, settings, stop, unfold
from tests.console.browser.conftest import Opens
from tests.console.browser.house import SLEEPER, Place

pytestmark = pytest.mark.browser

ATTACK = "<img src=x onerror=\"window.hit=1\"><script>window.hit=1</script> <b>bold</b> & 'quotes' ${x} `y`"


# --- streams ---


def test_an_answer_grows_before_it_ends(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("It be", "gins.", held=True)
    page = playground(opens, at, MODEL)
    say(page, "hello")
    expect(answers(page).locator(".said")).to_have_text("It be")
    expect(answers(page)).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    actor.go.set()
    answered(page, "It begins.")
    expect(answers(page).get_by_text("stop", exact=True)).to_be_visible()
    expect(answers(page)).to_contain_text(re.compile(r"Tokens in\s*7\s*Tokens out\s*2"))
    expect(page.locator("[aria-live=polite]", has_text="Answer: It begins.")).to_be_attached()


def test_the_stop_button_closes_the_call_of_the_model(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("Once upon", " a time", held=True)
    page = playground(opens, at, MODEL)
    say(page, "a story")
    expect(answers(page).locator(".said")).to_have_text("Once upon")
    page.get_by_role("button", name="Stop", exact=True).click()
    assert actor.left.wait(BOUND)
    expect(answers(page)).to_contain_text("stopped by you")
    answered(page, "Once upon")
    idle(at)


def idle(at: Place) -> None:
    """Nothing runs in the gateway any more."""
    until = time.monotonic() + BOUND
    with at.client(admin=True) as client:
        while client.get("/admin/upstreams").raise_for_status().json()["data"][0]["running"]:
            assert time.monotonic() < until
            time.sleep(0.02)  # nobody tells us that it has changed


def test_leaving_the_page_ends_the_call_and_coming_back_finds_the_chat(
    opens: Opens, stage: tuple[Place, Actor]
) -> None:
    at, actor = stage
    actor.says("Kept", " and gone", held=True)
    page = playground(opens, at, MODEL)
    say(page, "hello")
    expect(answers(page).locator(".said")).to_have_text("Kept")
    page.get_by_role("link", name="Models", exact=True).click()
    assert actor.left.wait(BOUND)
    page.get_by_role("link", name="Playground", exact=True).click()
    answered(page, "Kept")
    seen = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    assert "Kept" not in seen
    page.reload()
    expect(page.get_by_text("No messages yet")).to_be_visible()


def test_a_whole_answer_comes_at_once(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("All ", "of it.")
    page = playground(opens, at, MODEL)
    page.get_by_label("Stream the answer").uncheck()
    say(page, "hello")
    answered(page, "All of it.")
    assert not actor.asked[-1].get("stream")


def test_thoughts_are_folded(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("")
    actor.pieces = [{"reasoning_content": "Let me think."}, {"content": "Done."}]
    page = playground(opens, at, MODEL)
    say(page, "hello")
    answered(page, "Done.")
    expect(page.get_by_text("Let me think.")).to_be_hidden()
    unfold(page, "Reasoning")
    expect(page.get_by_text("Let me think.")).to_be_visible()


def test_the_times_of_the_pieces_are_drawn_and_said(opens: Opens) -> None:
    page = playground(opens)
    say(page, "count to 20")
    answered(page, re.compile("^1 2 .* 20$"))
    drawing = answers(page).get_by_role("img")
    expect(drawing).to_have_accessible_name(re.compile(r"First chunk after .*, \d+ chunks; gap "))
    assert len(re.findall("M", drawing.locator("path").get_attribute("d") or "")) > 5


# --- tools and forms ---


def test_a_tool_is_called_and_its_result_is_told(opens: Opens) -> None:
    page = playground(opens)
    unfold(page, "Tools")
    page.get_by_role("button", name="Insert an example").click()
    expect(page.get_by_text("1 tool: get_weather")).to_be_visible()
    say(page, "What is the weather in Paris?")
    call = page.get_by_label("Call of get_weather")
    expect(call).to_contain_text('"city": "Paris"')
    expect(answers(page).get_by_text("tool_calls")).to_be_visible()
    page.get_by_label("Result of get_weather").fill('{"temperature": 21}')
    page.get_by_role("button", name="Send the result").click()
    answered(page, 'I was told: {"temperature": 21}')
    expect(page.get_by_role("article", name="Result of get_weather")).to_contain_text("21")


def test_tools_that_are_no_json_are_told(opens: Opens) -> None:
    page = playground(opens)
    unfold(page, "Tools")
    page.get_by_label("Tools as JSON").fill('[{"type"')
    expect(page.get_by_label("Tools as JSON")).to_have_accessible_description(re.compile("not JSON"))
    page.get_by_label("Tools as JSON").fill('{"name": "x"}')
    expect(page.get_by_label("Tools as JSON")).to_have_accessible_description(re.compile("list of tools"))


def test_an_answer_fits_a_schema(opens: Opens) -> None:
    page = playground(opens)
    unfold(page, "Response format")
    page.get_by_label("Format", exact=True).select_option("JSON schema")
    page.get_by_role("button", name="Insert an example").last.click()
    say(page, "Say that Ada is 36")
    expect(answers(page)).to_contain_text("JSON guaranteed")
    answered(page, re.compile(r'^\{"name": ".+", "age": 36\}$'))


# --- what is seen ---


def test_the_prompt_follows_what_is_typed(opens: Opens) -> None:
    page = playground(opens)
    page.get_by_role("tab", name="Prompt").click()
    expect(page.get_by_text("No message yet")).to_be_visible()
    page.get_by_label("Message", exact=True).fill("你好\n</s>")
    prompt = page.get_by_label("Rendered prompt")
    expect(prompt).to_contain_text("[Round 1]")
    expect(prompt).to_contain_text("问：你好")
    assert str(prompt.evaluate("element => element.textContent")).startswith("[Round 1]\n\n问：你好\n")
    expect(prompt.locator(".line-end").first).to_be_visible()
    page.get_by_label("Message", exact=True).fill("再见")
    expect(prompt).to_contain_text("问：再见")


def test_the_prompt_stands_beside_the_first_answer(opens: Opens) -> None:
    page = playground(opens)
    expect(page.get_by_label("System prompt")).to_be_visible()
    say(page, "count to 3")
    answered(page, "1 2 3")
    expect(page.get_by_role("tab", name="Prompt")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_label("Rendered prompt")).to_contain_text("问：count to 3")
    settings(page)
    say(page, "count to 4")
    answered(page, "1 2 3 4")
    expect(page.get_by_label("System prompt")).to_be_visible()


def test_nobody_who_works_in_the_settings_loses_them_to_the_prompt(
    opens: Opens, stage: tuple[Place, Actor]
) -> None:
    at, actor = stage
    actor.says("It be", "gins.", held=True)
    page = playground(opens, at, MODEL)
    say(page, "hello")
    field = page.get_by_label("Temperature")
    field.fill("0.5")
    actor.go.set()
    answered(page, "It begins.")
    expect(field).to_be_focused()
    page.get_by_label("Message", exact=True).focus()
    expect(field).to_be_visible()


def test_what_a_model_or_a_person_writes_is_text(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says(ATTACK)
    actor.pieces = [{"reasoning_content": ATTACK}, {"content": ATTACK}]
    page = playground(opens, at, MODEL)
    page.get_by_label("System prompt").fill(ATTACK)
    stop(page, ATTACK[:30])
    say(page, ATTACK)
    answered(page, ATTACK)
    unfold(page, "Reasoning")
    expect(page.get_by_role("article", name="You").locator(".said")).to_have_text(ATTACK)
    for tab in ("Prompt", "Code"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel").first).to_contain_text("onerror")
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main b:has-text('bold'), main script").count() == 0


def test_a_cold_model_is_seen_to_boot(opens: Opens, gateway: Place) -> None:
    gateway.chat("hello", SLEEPER)  # before its first call nobody knows that it sleeps
    gateway.until(SLEEPER, "cold")
    page = playground(opens, model=SLEEPER)
    say(page, "count to 2")
    booting = answers(page).get_by_role("progressbar")
    expect(booting).to_have_attribute("aria-valuetext", re.compile("Booting"))
    answered(page, re.compile(".+"))
    expect(answers(page).get_by_role("progressbar")).to_have_count(0)


# --- how it is used ---


def test_the_keyboard_alone_chats(opens: Opens) -> None:
    page = playground(opens)
    message = page.get_by_label("Message", exact=True)
    tabbed(page, page.get_by_label("Model", exact=True))
    tabbed(page, message)
    page.keyboard.type("repeat: one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(message).to_have_value("repeat: one\ntwo")
    page.keyboard.press("Enter")
    answered(page, re.compile("one"))
    expect(message).to_be_focused()
    tabbed(page, page.get_by_role("tab", name="Prompt"))
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Settings")).to_be_focused()
    expect(page.get_by_label("System prompt")).to_be_visible()


def tabbed(page: Page, wanted: Locator) -> None:
    """Tab leads there."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not reach {wanted}")


def test_escape_stops_an_answer(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("Long", " and longer", held=True)
    page = playground(opens, at, MODEL)
    say(page, "hello")
    expect(answers(page).locator(".said")).to_have_text("Long")
    page.get_by_label("Message", exact=True).press("Escape")
    assert actor.left.wait(BOUND)
    expect(answers(page)).to_contain_text("stopped by you")


def test_a_phone_has_the_settings_in_a_drawer_and_never_scrolls_sideways(
    opens: Opens, faults_of: Callable[[Page], Sequence[str]]
) -> None:
    page = playground(opens, phone=True)
    say(page, "repeat: " + 300 * "x")
    answered(page, re.compile("xxx"))
    page.get_by_role("button", name="Settings").click()
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_role("tab", name="Settings")).to_have_attribute("aria-selected", "true")
    drawer.get_by_label("Temperature").fill("0.5")
    drawer.get_by_role("tab", name="Code").click()
    expect(drawer.get_by_label("curl program")).to_contain_text('"temperature": 0.5')
    assert not faults_of(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not faults_of(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault_in_a_chat(
    dark: bool, opens: Opens, faults_of: Callable[[Page], Sequence[str]]
) -> None:
    page = playground(opens, dark=dark)
    unfold(page, "Tools")
    page.get_by_role("button", name="Insert an example").click()
    page.get_by_label("Temperature").fill("9")
    say(page, "hello")
    expect(page.get_by_role("alert")).to_be_visible()
    assert not faults_of(page)
    page.get_by_label("Temperature").fill("")
    say(page, "What is the weather in Paris?")
    expect(page.get_by_label("Result of get_weather")).to_be_visible()
    for tab in ("Prompt", "Code"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel").first.locator("pre").first).to_be_visible()
        assert not faults_of(page)
