"""Logging in and out, finding one's way, and what every page keeps to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from playwright.sync_api import Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.house import Place

pytestmark = pytest.mark.browser

PAGES = ("overview", "models", "playground", "keys", "usage", "requests")
REFUSED = r"status of 401"  # browsers log every answer that is an error
MOST = 200_000  # bytes of a page's first load

Finds = Callable[[Page], Sequence[str]]


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def settled(page: Page, name: str) -> None:
    """The page is there, and has heard from the gateway."""
    heading(page, name.capitalize())
    expect(page.locator(".loading")).to_have_count(0)
    page.wait_for_load_state("networkidle")


def test_the_admin_key_logs_in_and_leaves_no_trace_in_the_page(opens: Opens, gateway: Place) -> None:
    page = opens(login=False)
    expect(page).to_have_title("Log in · modal-gateway")
    page.get_by_label("Admin key").fill(gateway.admin)
    page.get_by_role("button", name="Log in").click()
    heading(page, "Overview")
    [cookie] = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("gateway_session", True, "Strict")
    seen = page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
    assert cookie["value"] not in seen
    assert gateway.admin not in seen + page.url + page.content()


def test_a_wrong_key_is_told_at_its_field(opens: Opens) -> None:
    page = opens(login=False, allowed=REFUSED)
    field = page.get_by_label("Admin key")
    field.fill("wrong")
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("This key is wrong"))
    assert not page.context.cookies()


def test_a_one_time_address_logs_in_once_and_is_gone_from_the_address(
    opens: Opens, demo_gateway: tuple[Place, str]
) -> None:
    place, address = demo_gateway
    fragment = address.removeprefix(place.url)
    page = opens(fragment, login=False, at=place)
    heading(page, "Overview")
    assert page.url == f"{place.url}/#/overview"
    again = opens(fragment, login=False, at=place)  # open to this machine: nothing was needed
    heading(again, "Overview")
    assert again.url == f"{place.url}/#/overview"


def test_an_address_that_was_used_is_told_where_a_key_is_needed(opens: Opens) -> None:
    page = opens("/#ticket=used", login=False, allowed=REFUSED)
    expect(page.get_by_label("Admin key")).to_have_accessible_description(re.compile("was used"))
    assert "ticket" not in page.url


def test_where_no_key_is_needed_the_console_opens_by_itself(
    opens: Opens, demo_gateway: tuple[Place, str]
) -> None:
    place, _ = demo_gateway
    page = opens(login=False, at=place)
    heading(page, "Overview")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Open the console").click()
    heading(page, "Overview")


def test_logging_out_ends_the_session_for_good(opens: Opens) -> None:
    page = opens()
    heading(page, "Overview")
    cookies = page.context.cookies()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status").filter(has_text="logged out")).to_be_visible()
    assert not page.context.cookies()
    page.context.add_cookies(cookies)  # type: ignore[arg-type]
    assert page.request.get("/admin/upstreams").status == 401


def test_a_logout_that_fails_is_told_and_leaves_the_session(opens: Opens) -> None:
    page = opens("/#/keys", allowed="ERR_FAILED")
    settled(page, "keys")
    page.route("**/console/session", lambda route: route.abort())
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status").filter(has_text="Could not log out")).to_be_visible()
    heading(page, "Keys")
    assert page.context.cookies()
    page.unroute("**/console/session")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    assert not page.context.cookies()


def test_a_refusal_does_not_end_a_session_that_holds(opens: Opens) -> None:
    page = opens("/#/models", allowed=REFUSED)
    settled(page, "models")
    body = {"error": {"message": "Not you.", "type": "invalid_request_error", "code": "invalid_api_key"}}
    page.route("**/admin/upstreams", lambda route: route.fulfill(status=401, json=body))
    expect(page.get_by_role("alert")).to_contain_text("Not you.")
    heading(page, "Models")


def test_a_gateway_that_is_away_is_not_asked_to_take_a_key(opens: Opens, gateway: Place) -> None:
    page = opens("about:blank", allowed="ERR_FAILED")
    page.route("**/console/session", lambda route: route.abort())
    page.goto(gateway.url)
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_label("Admin key")).to_have_count(0)
    page.unroute("**/console/session")
    page.get_by_role("button", name="Try again").click()
    heading(page, "Overview")


def test_a_session_that_has_ended_leads_to_the_login_and_back_to_the_same_page(
    opens: Opens, gateway: Place
) -> None:
    page = opens("/#/models", allowed=REFUSED)
    settled(page, "models")
    page.context.clear_cookies()
    expect(page.get_by_text("Your session has ended")).to_be_visible()  # the page asks every two seconds
    page.get_by_label("Admin key").fill(gateway.admin)
    page.get_by_label("Admin key").press("Enter")
    heading(page, "Models")


def test_the_keyboard_alone_logs_in_and_opens_a_page(opens: Opens, gateway: Place) -> None:
    page = opens(login=False)
    expect(page.get_by_label("Admin key")).to_be_focused()
    page.keyboard.type(gateway.admin)
    page.keyboard.press("Enter")
    heading(page, "Overview")
    link = page.get_by_role("link", name="Models", exact=True)
    for _ in range(10):
        page.keyboard.press("Tab")
        if link.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    title = page.get_by_role("heading", level=1, name="Models")
    expect(title).to_be_focused()
    expect(link).to_have_attribute("aria-current", "page")


def test_the_first_key_skips_the_navigation(page: Page) -> None:
    heading(page, "Overview")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    assert page.url.endswith("/")


def test_colours_follow_the_system_until_one_is_chosen_and_stay_chosen(opens: Opens) -> None:
    page = opens(dark=True)
    heading(page, "Overview")

    def shade() -> str:
        return str(page.evaluate("getComputedStyle(document.body).getPropertyValue('color-scheme')"))

    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Theme: system").click()
    assert page.evaluate(background) != dark
    assert shade() == "light"
    page.reload()
    heading(page, "Overview")
    assert shade() == "light"


def test_an_unknown_page_says_so_and_leads_back(opens: Opens) -> None:
    page = opens("/#/nowhere")
    page.get_by_role("link", name="Go to the overview").click()
    heading(page, "Overview")


def test_a_gateway_that_does_not_answer_is_told_and_comes_back(opens: Opens) -> None:
    page = opens("/#/models", allowed=r"ERR_FAILED|ERR_INTERNET_DISCONNECTED")
    settled(page, "models")
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.get_by_role("article").first).to_be_visible()  # what was known stays
    page.context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_answer_that_is_none_is_told_in_words(opens: Opens) -> None:
    page = opens("/#/models")
    settled(page, "models")
    page.route("**/admin/upstreams", lambda route: route.fulfill(status=200, body="<html>"))
    expect(page.get_by_role("alert")).to_contain_text("not valid JSON")


# --- what every page keeps to ---


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_little_and_soon(name: str, opens: Opens, capsys: pytest.CaptureFixture[str]) -> None:
    page = opens("about:blank")
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(_size(request)))
    page.goto(f"/#/{name}")
    settled(page, name)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    with capsys.disabled():
        print(f"\n{name}: {sum(sizes)} bytes in {len(sizes)} answers, first paint after {paint:.0f} ms")
    assert sum(sizes) <= MOST


def _size(request: object) -> int:
    return int(request.sizes()["responseBodySize"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(name: str, dark: bool, opens: Opens, faults_of: Finds) -> None:
    page = opens(f"/#/{name}", dark=dark)
    settled(page, name)
    assert not faults_of(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_serious_fault_at_the_login(dark: bool, opens: Opens, faults_of: Finds) -> None:
    page = opens(login=False, dark=dark)
    expect(page.get_by_label("Admin key")).to_be_visible()
    assert not faults_of(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_never_scrolls_sideways(name: str, opens: Opens, faults_of: Finds) -> None:
    page = opens(f"/#/{name}", phone=True)
    settled(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not faults_of(page)
