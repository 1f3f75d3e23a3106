"""What of the playground reaches the model, and what is refused before it does."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect

from tests.console.browser.actor import MODEL, Actor
from tests.console.browser.chatting import BOUND, answered, answers, playground, say, settings, stop, unfold
from tests.console.browser.conftest import Opens
from tests.console.browser.house import Place

pytestmark = pytest.mark.browser


def test_what_is_set_is_sent_and_nothing_else(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("Yes.")
    page = playground(opens, at, MODEL)
    say(page, "plain")
    answered(page, "Yes.")
    messages = [{"role": "user", "content": "plain"}]
    sent = {"model": MODEL, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    assert actor.asked[-1] == sent
    page.get_by_role("button", name="New chat").click()
    settings(page)
    numbers = {"Temperature": "0.5", "Max tokens": "20", "Top p": "0.9", "Seed": "-7"}
    unfold(page, "More parameters")
    more = {"Top k": "40", "Min p": "0,1", "Presence penalty": "1", "Frequency penalty": "-1.5"}
    for label, value in {**numbers, **more, "Repetition penalty": "1.1"}.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("System prompt").fill("Be brief.")
    stop(page, "\\nObservation:")
    stop(page, "END")
    say(page, "again")
    answered(page, "Yes.")
    system = {"role": "system", "content": "Be brief."}
    wanted = {
        **sent, "messages": [system, {"role": "user", "content": "again"}], "temperature": 0.5, "top_p": 0.9,
        "seed": -7, "top_k": 40, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1.5,
        "repetition_penalty": 1.1, "stop": ["\nObservation:", "END"],
    }  # fmt: skip
    found = actor.asked[-1]
    assert {found.pop("max_tokens", None), found.pop("max_completion_tokens", None)} == {20, None}
    assert found == wanted


def test_a_value_out_of_range_is_told_at_its_field_and_not_sent(
    opens: Opens, stage: tuple[Place, Actor]
) -> None:
    at, actor = stage
    actor.says("Yes.")
    count = len(actor.asked)
    page = playground(opens, at, MODEL)
    field = page.get_by_label("Temperature")
    field.fill("3")
    expect(field).to_have_accessible_description(re.compile("from 0 to 2"))
    say(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("Temperature")
    expect(page.get_by_label("Message", exact=True)).to_have_value("hello")
    assert len(actor.asked) == count
    field.press("ArrowDown")
    expect(field).to_have_value("2")
    page.get_by_label("Message", exact=True).press("Enter")
    answered(page, "Yes.")


def test_what_the_gateway_refuses_is_told_in_place_and_at_its_field(
    opens: Opens, stage: tuple[Place, Actor]
) -> None:
    at, actor = stage
    actor.says("Yes.")
    page = playground(opens, at, MODEL, allowed="status of 400")
    page.get_by_label("Max tokens").fill("5000")
    say(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("max_tokens")
    expect(page.get_by_label("Max tokens")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Max tokens").fill("10")
    page.get_by_role("button", name="Try again").click()
    answered(page, "Yes.")
    page.get_by_label("Max tokens").fill("5000")
    page.get_by_role("tab", name="Prompt", exact=True).click()
    say(page, "again")
    expect(page.get_by_label("Max tokens")).to_have_attribute("aria-invalid", "true")


def test_an_unknown_model_is_told_with_its_code(opens: Opens) -> None:
    page = playground(opens, model="nobody", allowed="status of 404")
    say(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("model_not_found")


@pytest.mark.parametrize(
    ("stream", "body", "said"),
    [(False, "{}", "no message"), (False, "{", "not valid JSON"), (True, "data: {\n\n", "not valid JSON")],
)
def test_an_answer_that_is_none_is_told_with_its_request(
    opens: Opens, stream: bool, body: str, said: str
) -> None:
    page = playground(opens)
    page.get_by_label("Stream the answer").set_checked(stream)
    headers = {"x-request-id": "req_of_nothing"}
    answer = {"status": 200, "body": body, "headers": headers}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answer))
    say(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.get_by_role("link", name="req_of_nothing")).to_be_visible()


def test_a_stop_string_cuts_the_answer(opens: Opens) -> None:
    page = playground(opens)
    stop(page, " 5")
    say(page, "count to 10")
    answered(page, "1 2 3 4")
    settings(page)
    expect(page.get_by_role("list", name="Stops that are sent")).to_contain_text("5")
    page.get_by_role("button", name="Remove 5").click()
    answers(page).get_by_role("button", name="Regenerate").click()
    answered(page, "1 2 3 4 5 6 7 8 9 10")


def test_messages_can_be_changed_deleted_and_answered_again(opens: Opens, stage: tuple[Place, Actor]) -> None:
    at, actor = stage
    actor.says("First.")
    page = playground(opens, at, MODEL)
    say(page, "one")
    answered(page, "First.")
    actor.says("Second.")
    say(page, "two")
    answered(page, "Second.")
    answers(page).first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit: Assistant").fill("Changed.")
    page.get_by_role("button", name="Save").click()
    expect(answers(page).first.get_by_role("button", name="Edit")).to_be_focused()
    expect(answers(page).first).to_contain_text("edited by you")
    answers(page).last.get_by_role("button", name="Regenerate").click()
    answered(page, "Second.")
    texts = ["one", "Changed.", "two"]
    assert [message["content"] for message in actor.asked[-1]["messages"]] == texts
    page.get_by_role("article", name="You").first.get_by_role("button", name="Delete").click()
    page.get_by_role("article", name="You").last.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit: You").fill("three")
    page.get_by_role("button", name="Resend from here").click()
    answered(page, "Second.")
    assert [message["content"] for message in actor.asked[-1]["messages"]] == ["Changed.", "three"]


def test_a_call_is_booked_under_the_name_console(opens: Opens, gateway: Place) -> None:
    page = playground(opens)
    say(page, "count to 3")
    answered(page, "1 2 3")
    answers(page).get_by_role("link", name=re.compile("req_")).click()
    expect(page).to_have_url(re.compile("#/requests/req_"))
    until = time.monotonic() + BOUND
    with gateway.client(admin=True) as client:
        while "console" not in client.get("/admin/usage", params={"by": "key"}).raise_for_status().text:
            assert time.monotonic() < until
            time.sleep(0.05)  # rows are booked a moment later


def test_another_model_is_chosen_and_stays_in_the_address(opens: Opens) -> None:
    page = playground(opens)
    page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
    expect(page).to_have_url(re.compile(r"#/playground\?model=gpt-4o-mini$"))
    say(page, "count to 2")
    answered(page, "1 2")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("gpt-4o-mini")
