"""Usage: sums by whoever, bars that add up to them, and the rows as files."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.holders import ask, ask_often, booked, key_of, new_key
from tests.console.browser.house import CHAT, Place, place

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(2)>"


def figure(page: Page, label: str) -> Locator:
    """One of the figures above the chart."""
    return page.locator(".stat", has_text=label).locator(".figure")


def test_a_request_is_seen_in_the_sums_and_among_the_requests(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "consumer")
    ask_often(gateway, secret, 2)
    booked(gateway, 2, key="consumer")
    page = opens("/#/usage?key=consumer")
    expect(figure(page, "Requests")).to_have_text("2")
    used = ask(gateway, secret).json()["usage"]
    rows = booked(gateway, 3, key="consumer")
    page.get_by_role("button", name="Refresh").click()
    expect(figure(page, "Requests")).to_have_text("3")
    expect(figure(page, "Tokens out")).to_have_text(str(sum(row["completion_tokens"] for row in rows)))
    assert used["completion_tokens"] == rows[0]["completion_tokens"]
    page.get_by_role("link", name="Requests of consumer").click()
    expect(page.get_by_role("table", name="Requests").locator("tbody tr")).to_have_count(3)


def test_it_is_told_by_key_team_model_and_day(opens: Opens, gateway: Place) -> None:
    ask_often(gateway, new_key(gateway, "member", team="sums"), 1)
    booked(gateway, 1, key="member")
    page = opens("/#/usage")
    table = page.locator("tbody")
    today = datetime.now(UTC).date().isoformat()
    for by, name in {"Team": "sums", "Model": CHAT, "Day": today, "Key": "member"}.items():
        page.get_by_role("tab", name=by, exact=True).click()
        expect(table.get_by_text(name, exact=True)).to_be_visible()
        expect(page.get_by_role("tabpanel", name=f"Breakdown by {by.lower()}")).to_be_visible()
    for shown in ("Requests", "GPU time", "Cost", "Tokens"):
        page.get_by_role("tab", name=shown).click()
        expect(page.get_by_role("heading", name=shown, exact=True)).to_be_visible()
        expect(page.get_by_role("img", name=re.compile(" by key"))).to_be_visible()


def test_it_is_narrowed_down_and_the_address_keeps_it(opens: Opens, gateway: Place) -> None:
    for name in ("narrow-a", "narrow-b"):
        ask_often(gateway, new_key(gateway, name, team="narrow"), 1)
        booked(gateway, 1, key=name)
    page = opens("/#/usage")
    page.get_by_label("Team").fill("narrow")
    page.get_by_label("Team").press("Enter")
    expect(figure(page, "Requests")).to_have_text("2")
    page.reload()
    expect(figure(page, "Requests")).to_have_text("2")
    page.get_by_role("link", name="narrow-b", exact=True).click()
    expect(page).to_have_url(re.compile("key=key_[0-9a-f]+"))  # which stays when its name changes
    expect(page.get_by_label("Key", exact=True)).to_have_value("narrow-b")
    expect(figure(page, "Requests")).to_have_text("1")
    page.get_by_label("Key", exact=True).fill("narrow-a")
    page.get_by_label("Key", exact=True).press("Enter")
    expect(page).to_have_url(re.compile(f"key={key_of(gateway, 'narrow-a')['id']}"))
    page.get_by_label("Model").fill("no-such-model")
    page.get_by_label("Model").press("Enter")
    expect(page.get_by_text("No usage")).to_be_visible()


@pytest.mark.parametrize("span", ["range=24h", "range=7d", "range=30d"])
def test_the_bars_add_up_to_the_sums(opens: Opens, gateway: Place, span: str) -> None:
    name = f"bars-{span[6:]}"
    ask_often(gateway, new_key(gateway, name), 2)
    booked(gateway, 2, key=name)
    page = opens("/")
    answers: list[Any] = []
    page.on("response", lambda answer: f"key={name}" in answer.url and answers.append(answer))
    page.goto(f"/#/usage?key={name}&{span}")
    expect(page.get_by_role("img", name=re.compile("tokens by key"))).to_be_visible()
    told = {answer.json().get("per"): answer.json() for answer in answers}
    assert len(answers) == 2 and set(told) == {None, "hour" if span == "range=24h" else "day"}
    assert [sum(line["requests"] for line in each["data"]) for each in told.values()] == [2, 2]


def test_a_line_belongs_to_the_bar_in_which_it_began(opens: Opens) -> None:
    page = opens("/")
    for each in page.evaluate(SLICED):
        assert each["bars"] == each["expected"], each["span"]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that 700 keys used on each of the last 30 days, twice in each."""
    folder = tmp_path_factory.mktemp("crowded")
    today = int(time.time()) // 86_400 * 86_400_000
    used = [(today - day * 86_400_000, f"k{key}") for day in range(30) for key in range(700)]
    with place(folder, {"m": {"upstream": {"kind": "demo"}}}) as at:
        with closing(sqlite3.connect(folder / "gateway.db", timeout=20)) as database, database:
            row = "INSERT INTO days VALUES (?1, ?2, '', 'm', ?2, 2, 0, 3, 4, 0, 0)"
            database.executemany(row, used)
        yield at


def test_keys_that_are_too_many_to_be_told_apart_are_drawn_together(opens: Opens, crowded: Place) -> None:
    page = opens("/#/usage?range=30d", at=crowded, allowed="400")
    expect(page.get_by_text("too many to show")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("tokens by day"))).to_be_visible()
    expect(figure(page, "Requests")).to_have_text("42,000")
    expect(page.locator(".stat", has_text="Cost")).to_contain_text("no price set")


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Auckland"])
def test_a_day_in_utc_keeps_its_date_everywhere(opens: Opens, gateway: Place, zone: str) -> None:
    ask_often(gateway, new_key(gateway, f"far-{zone[:3]}"), 1)
    booked(gateway, 1, key=f"far-{zone[:3]}")
    page = opens(f"/#/usage?by=day&key=far-{zone[:3]}", timezone_id=zone)
    day = page.locator("tbody td").first
    expect(day).to_have_text(re.compile(r"\d{4}-\d\d-\d\d"))
    said = datetime.strptime(day.inner_text(), "%Y-%m-%d")
    expect(page.locator(".chart .when")).to_have_text(f"{said.day} {said:%b %Y}")


SPANS = """import('/console/pages/usage_spans.js').then(({spanOf, slicesOf, MOST}) => {
  const now = Date.parse('2026-11-21T19:30:00Z') / 1000;
  const asked = ['24h', '7d', '30d', 'custom'].map((range) => ({range}));
  asked.push({range: 'custom', from: 'x', to: 'y'});
  for (let days = 1; days < 900; days += 7) {
    const to = new Date((now - 86400 * 2) * 1000).toISOString().slice(0, 10);
    const from = new Date((now - 86400 * (days + 1)) * 1000).toISOString().slice(0, 10);
    asked.push({range: 'custom', from, to}, {range: 'custom', from: to, to: from});
  }
  return asked.map((query) => ({span: spanOf(query, now), slices: slicesOf(spanOf(query, now)), most: MOST}));
})"""


SLICED = """import('/console/pages/usage_spans.js').then(({spanOf, slicesOf, sliced}) => {
  const now = Date.parse('2026-11-21T19:30:00Z') / 1000;
  const asked = ['24h', '7d', '30d'].map((range) => ({range}));
  const days = ['2026-11-20', '2026-10-03', '2026-01-03'];
  asked.push(...days.map((from) => ({range: 'custom', from, to: '2026-11-20'})));
  return asked.map((query) => {
    const span = spanOf(query, now);
    const step = span.width < 86400 ? 3600 : 86400;
    const starts = Array.from({length: (span.until - span.since) / step}, (_, at) => span.since + at * step);
    const lines = starts.map((start) => ({start: new Date(start * 1000).toISOString()}));
    const within = ({since, until}) => lines.filter((_, at) => since <= starts[at] && starts[at] < until);
    return {span, bars: sliced(lines, span), expected: slicesOf(span).map(within)};
  });
})"""


def test_every_span_is_a_bounded_number_of_slices_without_a_hole(opens: Opens) -> None:
    page = opens("/")
    for each in page.evaluate(SPANS):
        span, slices = each["span"], each["slices"]
        assert 1 <= len(slices) <= each["most"], span
        assert slices[0]["since"] == span["since"] and slices[-1]["until"] == span["until"]
        assert all(a["until"] == b["since"] for a, b in pairwise(slices))
        assert all(one["since"] % 3600 == 0 for one in slices)


def test_days_of_choice_are_asked_for_as_they_are_written(opens: Opens) -> None:
    page = opens("/#/usage")
    page.get_by_label("Time").select_option("custom")
    page.get_by_label("From").fill("2026-01-05")
    with page.expect_request(re.compile(r"/admin/usage\?.*since=2026-01-05T00.*until=2026-01-08T00")):
        page.get_by_label("To (included)").fill("2026-01-07")
    expect(page.get_by_text("No usage")).to_be_visible()


def test_the_files_hold_the_rows(opens: Opens, gateway: Place) -> None:
    ask_often(gateway, new_key(gateway, "=files", team="exported"), 3)
    ids = [row["id"] for row in booked(gateway, 3, key="=files")]
    page = opens("/#/usage?team=exported")
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download as CSV").click()
    assert re.fullmatch(r"usage-\d{4}-\d\d-\d\d-\d{4}-\d\d-\d\d\.csv", begun.value.suggested_filename)
    rows = list(csv.DictReader(io.StringIO(Path(begun.value.path()).read_text(), newline="")))
    assert [row["id"] for row in rows if row["kind"] == "request"] == ids[::-1]
    assert {row["key_name"] for row in rows} == {"'=files"}  # no formula for a spreadsheet
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download as JSON").click()
    told = map(json.loads, Path(begun.value.path()).read_text().splitlines())
    assert [row["id"] for row in told if row["kind"] == "request"] == ids[::-1]


def test_names_are_text(opens: Opens, gateway: Place) -> None:
    ask_often(gateway, new_key(gateway, EVIL, team=EVIL), 1)
    booked(gateway, 1, key=EVIL)
    page = opens("/#/usage?by=key")
    expect(page.locator("tbody").get_by_role("link", name=EVIL, exact=True)).to_be_visible()
    page.get_by_role("tab", name="Team", exact=True).click()
    expect(page.locator("tbody").get_by_role("link", name=EVIL, exact=True)).to_be_visible()
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_anybody_out(
    opens: Opens, gateway: Place, faults_of: Callable[[Page], Sequence[str]], dark: bool
) -> None:
    ask_often(gateway, new_key(gateway, f"seen-{dark}"), 1)
    booked(gateway, 1, key=f"seen-{dark}")
    page = opens("/#/usage?range=custom", dark=dark)
    expect(page.get_by_role("img", name=re.compile("tokens by key"))).to_be_visible()
    assert not faults_of(page)


def test_on_a_phone_the_page_is_as_wide_as_the_phone(opens: Opens, gateway: Place) -> None:
    ask_often(gateway, new_key(gateway, "on-a-small-telephone-with-a-long-name"), 1)
    booked(gateway, 1, key="on-a-small-telephone-with-a-long-name")
    page = opens("/#/usage", phone=True)
    expect(page.get_by_role("table")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("tokens by key"))).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


LINES = """figures => figures.map(figure => figure.getClientRects().length)"""


@pytest.mark.parametrize("width", [1280, 900, 390, 320])
def test_a_figure_stands_in_one_line(opens: Opens, width: int) -> None:
    page = opens("about:blank")
    page.set_viewport_size({"width": width, "height": 800})
    total = {"requests": 1, "errors": 0, "prompt_tokens": 123_456_789, "completion_tokens": 1}
    told = {"object": "list", "data": [], "total": {**total, "gpu_seconds": 3599, "dollars": 12_345.67}}
    page.route("**/admin/usage?*", lambda route: route.fulfill(json=told))
    page.goto("/#/usage")
    expect(figure(page, "GPU time")).to_have_text("59 min 59 s")
    assert page.locator(".stat .figure").evaluate_all(LINES) == [1] * 6


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that keeps neither keys nor a ledger."""
    with place(
        tmp_path_factory.mktemp("forgetful"), {"m": {"upstream": {"kind": "demo"}}}, store={"url": None}
    ) as at:
        yield at


@pytest.mark.parametrize("name", ["usage", "requests", "keys"])
def test_without_a_store_the_page_says_what_to_set(opens: Opens, forgetful: Place, name: str) -> None:
    page = opens(f"/#/{name}", at=forgetful)
    expect(page.get_by_text("store.url")).to_be_visible()
    expect(page.get_by_role("button", name="New key")).to_have_count(0)
