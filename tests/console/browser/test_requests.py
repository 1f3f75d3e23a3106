"""Requests: the newest first and the older behind them, and what one of them went through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.holders import ask, ask_often, booked, new_key
from tests.console.browser.house import CHAT, OWN, SLEEPER, Place, place

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(3)>"


def rows(page: Page) -> Locator:
    return page.get_by_role("table", name="Requests").locator("tbody tr")


def ids(page: Page) -> list[str]:
    """Those of the rows that are shown, from their links."""
    links = (
        rows(page).get_by_role("link").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
    )
    return [found[1] for link in links if (found := re.match(r"#/requests/([^?]+)", link))]


def test_sixty_requests_are_two_pages_and_none_is_there_twice(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "sixty")
    ask_often(gateway, secret, 60)
    known = [row["id"] for row in booked(gateway, 60, key="sixty")]
    page = opens("/#/requests?key=sixty")
    expect(rows(page)).to_have_count(50)
    assert ids(page) == known[:50]
    page.get_by_role("button", name="Load more").click()
    expect(rows(page)).to_have_count(60)
    expect(page.get_by_text("All 60 shown")).to_be_visible()
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)
    assert ids(page) == known
    page.evaluate("scrollTo(0, 0)")
    ask_often(gateway, secret, 2)
    expect(rows(page)).to_have_count(62)  # they come by themselves
    assert ids(page)[2:] == known
    assert len(set(ids(page))) == 62


def test_nothing_moves_below_somebody_who_reads_further_down(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "reader")
    ask_often(gateway, secret, 40)
    booked(gateway, 40, key="reader")
    page = opens("/")
    page.clock.install()
    page.goto("/#/requests?key=reader")
    expect(rows(page)).to_have_count(40)
    asked: list[str] = []
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_text("Paused: scroll up to resume")).to_be_attached()
    page.on("request", lambda request: "/admin/requests" in request.url and asked.append(request.url))
    ask_often(gateway, secret, 1)
    booked(gateway, 41, key="reader")
    page.clock.run_for(60_000)  # milliseconds, in which it would have asked many times
    assert not asked
    expect(rows(page)).to_have_count(40)
    page.evaluate("scrollTo(0, 0)")
    expect(rows(page)).to_have_count(41)


JOINED = (
    """([shown, page]) => import('/console/pages/requests_list.js').then(({joined}) => joined(shown, page))"""
)


def test_a_list_begins_anew_rather_than_with_a_hole(opens: Opens) -> None:
    page = opens("/")
    row = lambda number: {"id": f"r{number:03}", "time": f"2026-11-21T10:00:00.{number:03}Z"}  # noqa: E731
    shown = {"rows": [row(3), row(2)], "next": "older"}
    met = page.evaluate(JOINED, [shown, {"data": [row(5), row(3)], "next": "x"}])
    assert [one["id"] for one in met["rows"]] == ["r005", "r003", "r002"] and met["next"] == "older"
    late = page.evaluate(
        JOINED, [{"rows": [row(9), row(2)], "next": "older"}, {"data": [row(9), row(5), row(2)], "next": "x"}]
    )
    assert [one["id"] for one in late["rows"]] == ["r009", "r005", "r002"]
    apart = page.evaluate(JOINED, [shown, {"data": [row(9), row(8)], "next": "newer"}])
    assert [one["id"] for one in apart["rows"]] == ["r009", "r008"] and apart["next"] == "newer"


def test_requests_are_narrowed_down(opens: Opens, gateway: Place) -> None:
    one, other = (
        new_key(gateway, "filtered", team="filters"),
        new_key(gateway, "filtered-too", team="filters"),
    )
    ask_often(gateway, one, 1)
    assert ask(gateway, other, "no-such-model").status_code == 404
    booked(gateway, 2, team="filters")
    page = opens("/#/requests")
    page.get_by_label("Team").fill("filters")
    page.get_by_label("Team").press("Enter")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Outcome").select_option("error")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("model_not_found")
    page.get_by_label("Outcome").select_option("ok")
    expect(rows(page)).to_contain_text("200")
    page.get_by_label("Since").select_option("1h")
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Key").fill("nobody")
    page.get_by_label("Key").press("Enter")
    expect(page.get_by_text("No matching requests")).to_be_visible()


def test_who_called_without_a_key_is_called_so(opens: Opens, demo_gateway: tuple[Place, str]) -> None:
    here, _ = demo_gateway
    here.chat("hello", "chatglm2-6b")
    booked(here, 1, key="-")
    page = opens("/#/usage", at=here)
    page.get_by_role("link", name="no key", exact=True).click()
    expect(page).to_have_url(re.compile("key=-"))
    expect(page.get_by_label("Key", exact=True)).to_have_value("no key")
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(rows(page).first).to_contain_text(re.compile("no key.*no team"))
    page.get_by_label("Key", exact=True).fill("no key")
    page.get_by_label("Key", exact=True).press("Enter")
    expect(page).to_have_url(re.compile("key=-"))
    rows(page).get_by_role("link").first.click()
    expect(page.get_by_role("definition").get_by_role("link", name="no key")).to_be_visible()


def test_one_request_says_all_that_is_known(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "known", team="facts")
    ask(gateway, secret, "gpt-4o-mini", user="somebody", stream=True, max_tokens=8)
    [row] = booked(gateway, 1, key="known")
    page = opens("/#/requests?key=known")
    rows(page).get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Request", level=1)).to_be_focused()
    for fact in (row["id"], "gpt-4o-mini", CHAT, "somebody", "facts", row["finish"], row["tokens_source"]):
        expect(page.get_by_role("definition").filter(has_text=fact).first).to_be_visible()
    expect(page.get_by_text("store.log_content")).to_be_visible()
    page.locator("main").get_by_role("link", name="Requests", exact=True).click()
    expect(page).to_have_url(re.compile(r"#/requests\?key=known$"))
    rows(page).get_by_role("link").first.click()
    page.get_by_role("link", name=CHAT, exact=True).click()
    expect(page).to_have_url(re.compile(f"model={CHAT}"))


def test_the_timeline_of_a_cold_start_shows_the_boot(opens: Opens, gateway: Place) -> None:
    gateway.until(SLEEPER, "cold", "unknown")
    gateway.chat("hello", SLEEPER)
    gateway.until(SLEEPER, "cold")
    secret = new_key(gateway, "early")
    assert ask(gateway, secret, SLEEPER, stream=True, max_tokens=8).status_code == 200
    [row] = booked(gateway, 1, key="early")
    assert row["boot_ms"] > 1000
    page = opens("/#/requests?key=early")
    expect(rows(page)).to_contain_text("cold")
    rows(page).get_by_role("link").first.click()
    phases = page.get_by_role("listitem").filter(has_text="from")
    expect(phases.filter(has_text="Waited for a container to boot")).to_contain_text(re.compile(r"[\d.]+ s"))
    expect(phases.last).to_contain_text("to the end")
    widths = page.locator(".request-timeline i").evaluate_all(
        "parts => parts.map((part) => part.getBoundingClientRect().width)"
    )
    assert max(widths) == widths[0] and len(widths) == phases.count()


PHASES = """(row) => import('/console/pages/requests_facts.js').then(({phasesOf}) => phasesOf(row))"""


def test_phases_follow_one_another_to_the_end(opens: Opens) -> None:
    page = opens("/")
    times = product([0, 30, 500, None], [0, 40, None], [0, 80, 9000, None], [0, 100, None])
    for queue, boot, first, took in times:
        row = {"queue_ms": queue, "boot_ms": boot, "first_event_ms": first, "duration_ms": took}
        phases = page.evaluate(PHASES, row)
        assert sum(each["to"] - each["from"] for each in phases) == (took or 0)
        assert all(a["to"] == b["from"] for a, b in pairwise(phases))


def test_a_request_that_is_not_there_is_said_to_be(opens: Opens) -> None:
    page = opens("/#/requests/req_none", allowed="404")
    expect(page.get_by_role("alert")).to_contain_text("no such request")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that keeps prompts and answers, and whose model answers with markup."""
    models = {CHAT: {"upstream": {"kind": "demo", "responses": [f"{EVIL} an answer"]}}}
    folder = tmp_path_factory.mktemp("keeping")
    with place(folder, models, store={"url": "sqlite:///gateway.db", "log_content": True}) as found:
        yield found


def test_what_was_said_is_shown_as_text_where_it_is_kept(opens: Opens, keeping: Place) -> None:
    message = {"role": "user", "content": f"{EVIL} a question"}
    ask(keeping, OWN, messages=[message], user=EVIL, max_tokens=50)
    [row] = booked(keeping, 1)
    page = opens(f"/#/requests/{row['id']}", at=keeping)
    expect(page.locator("pre.request-content")).to_have_count(2)
    asked, answered = page.locator("pre.request-content").all()
    expect(asked).to_contain_text(f"{EVIL} a question")
    assert answered.inner_text().strip() == f"{EVIL} an answer"
    expect(page.get_by_role("definition").filter(has_text=EVIL)).to_be_visible()
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_anybody_out(
    opens: Opens, keeping: Place, faults_of: Callable[[Page], Sequence[str]], dark: bool
) -> None:
    ask(keeping, OWN)
    ask(keeping, OWN, "no-such-model")
    found = booked(keeping, 2)
    page = opens("/#/requests", at=keeping, dark=dark)
    expect(rows(page).first).to_be_visible()
    assert not faults_of(page)
    page.goto(f"/#/requests/{found[-1]['id']}")
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    assert not faults_of(page)


def test_on_a_phone_the_table_scrolls_and_not_the_page(opens: Opens, keeping: Place) -> None:
    ask(keeping, OWN, user="u" * 256, messages=[{"role": "user", "content": "w" * 2000}])
    row = booked(keeping, 1)[0]
    page = opens("/#/requests", at=keeping, phone=True)
    expect(rows(page).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(f"/#/requests/{row['id']}")
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
