"""A chat in the playground, as the tests of it have one."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.house import CHAT, Place

BOUND = 15.0  # seconds


def playground(opens: Opens, at: Place | None = None, model: str = CHAT, **options: Any) -> Page:
    page = opens(f"/#/playground?model={model}", at=at, **options)
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    return page


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant")


def answered(page: Page, text: str | re.Pattern[str]) -> None:
    """The last answer is this, and has ended."""
    expect(answers(page).last.locator(".said").last).to_have_text(text)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def settings(page: Page) -> None:
    """The settings beside the chat, where the prompt is once there is an answer."""
    page.get_by_role("tab", name="Settings", exact=True).click()


def unfold(page: Page, name: str) -> None:
    page.locator("summary", has_text=name).click()


def stop(page: Page, text: str) -> None:
    field = page.get_by_label("Stop strings")
    field.fill(text)
    field.press("Enter")
    expect(field).to_have_value("")
