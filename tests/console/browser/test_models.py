"""The models: their state, and waking one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.house import CHAT, SLEEPER, Place, place

pytestmark = pytest.mark.browser


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name)


def test_a_model_shows_its_names_state_and_places(opens: Opens, gateway: Place) -> None:
    gateway.chat("hello")
    page = opens("/#/models")
    model = card(page, CHAT)
    expect(model).to_contain_text("Aliases: gpt-4o-mini, gpt-3.5-turbo")
    expect(model).to_contain_text("warm")
    expect(model).to_contain_text("0 of 100")
    expect(model.get_by_role("button", name="Wake")).to_have_count(0)


def test_of_several_workers_one_is_said_to_answer(opens: Opens) -> None:
    page = opens("/#/models")
    expect(page.get_by_text("how busy it is. Viewing")).to_be_visible()
    told = page.request.get("/console/session").json()
    assert told["workers"] == 1
    page.route("**/console/session", lambda route: route.fulfill(json={**told, "workers": 4}))
    page.reload()
    expect(page.get_by_text("as one of the 4 workers sees it")).to_be_visible()


def test_a_cold_model_is_woken_and_seen_to_become_warm(opens: Opens, gateway: Place) -> None:
    gateway.until(SLEEPER, "cold", "unknown")
    page = opens("/#/models")
    model = card(page, SLEEPER)
    model.get_by_role("button", name=f"Wake {SLEEPER}").click()
    expect(model.get_by_role("progressbar")).to_be_visible()
    expect(model.get_by_role("button", name=f"Waking {SLEEPER}")).to_be_disabled()
    expect(page.get_by_role("status").filter(has_text=f"{SLEEPER} is warm after")).to_be_visible()
    expect(model.get_by_text("warm", exact=True)).to_be_visible()
    expect(model.get_by_role("progressbar")).to_have_count(0)


def test_the_second_boot_has_an_end_that_is_told(opens: Opens, gateway: Place) -> None:
    gateway.until(SLEEPER, "cold", "unknown")
    gateway.chat("hello", SLEEPER)
    gateway.until(SLEEPER, "cold")
    page = opens("/#/models")
    model = card(page, SLEEPER)
    expect(model).to_contain_text(re.compile(r"Usual boot\s*[\d.]+ s"))
    model.get_by_role("button", name="Wake").click()
    left = re.compile(r"about [\d.]+ s left")
    expect(model.get_by_role("progressbar")).to_have_attribute("aria-valuetext", left)
    expect(model.get_by_text("warm", exact=True)).to_be_visible()


@pytest.fixture
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway whose only model is at a port where nobody listens."""
    with ExitStack() as stack:
        upstream = {"url": "http://127.0.0.1:9", "connect_timeout": 1}
        models = {"away": {"upstream": upstream, "template": "plain"}}
        yield stack.enter_context(place(tmp_path_factory.mktemp("nowhere"), models))


def test_a_model_that_cannot_be_woken_says_why(opens: Opens, nowhere: Place) -> None:
    page = opens("/#/models", at=nowhere, allowed="status of 50")
    card(page, "away").get_by_role("button", name="Wake").click()
    expect(page.get_by_role("status").filter(has_text="Could not wake away")).to_be_visible()
    expect(card(page, "away").get_by_role("button", name="Wake away")).to_be_enabled()


def test_an_answer_without_a_line_is_no_success(opens: Opens, nowhere: Place) -> None:
    page = opens("/#/models", at=nowhere)
    page.route("**/warm", lambda route: route.fulfill(status=200, body=""))
    card(page, "away").get_by_role("button", name="Wake").click()
    expect(page.get_by_role("status").filter(has_text="Could not wake away")).to_be_visible()


def test_try_it_leads_to_the_playground_with_that_model(opens: Opens) -> None:
    page = opens("/#/models")
    card(page, SLEEPER).get_by_role("link", name=f"Try {SLEEPER} in the playground").click()
    expect(page).to_have_url(re.compile(rf"#/playground\?model={SLEEPER}$"))
