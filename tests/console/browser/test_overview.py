"""The overview: that its figures and charts tell of the requests that were made."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.house import CHAT, Place, place

pytestmark = pytest.mark.browser


def figure(page: Page, label: str) -> Locator:
    """The tile with this label."""
    return page.locator(".stat").filter(has=page.locator("dt", has_text=re.compile(f"^{label}")))


def test_requests_appear_within_seconds_with_what_they_cost(page: Page, gateway: Place) -> None:
    for _ in range(3):
        gateway.chat("count to 5")
    expect(figure(page, "Cost today")).to_contain_text(re.compile(r"\$0\.0\d+"))
    expect(page.get_by_role("img", name=re.compile(r"^Tokens.*Out \d"))).to_be_visible()
    expect(figure(page, "Requests")).to_contain_text(re.compile(r"[1-9]\d* in \d+ min"))


def test_the_charts_are_drawn_and_told_in_text(page: Page, gateway: Place) -> None:
    gateway.chat("hello")
    names = ("Requests", "Tokens", "Time to first token", "Time between tokens", "In flight", "Containers")
    for name in names:
        chart = page.get_by_role("img", name=re.compile(f"^{name}\\."))
        expect(chart.locator("canvas")).to_be_visible()
        expect(chart).to_have_accessible_name(re.compile(r"\d\d:\d\d:\d\d: \w"))


def test_a_late_point_is_no_spike(page: Page) -> None:
    def told(route: Route) -> None:
        answer = route.fetch().json()
        times = [(answer["now"] - 12.5, 5, 10), (answer["now"], 12.5, 25)]
        last = answer["points"][-1:] or [{}]
        answer["points"] = [
            {**last[0], "time": at, "seconds": covered, "requests": count, "errors": 0}
            for at, covered, count in times
        ]
        route.fulfill(json=answer)

    page.route("**/admin/overview", told)
    page.reload()
    expect(page.get_by_role("img", name=re.compile(r"^Requests\..*Requests 2\b"))).to_be_visible()
    expect(figure(page, "Requests")).to_contain_text("2 /s")


def test_nothing_is_asked_while_nobody_looks(opens: Opens) -> None:
    page = opens("about:blank")
    page.clock.install()
    page.goto("/")
    expect(page.locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {value: true, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    with page.expect_request("**/admin/overview"):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


def test_errors_lead_to_the_requests_that_failed(page: Page, gateway: Place) -> None:
    with gateway.client() as client:
        messages = [{"role": "user", "content": "hi"}]
        answer = client.post("/v1/chat/completions", json={"model": "nobody", "messages": messages})
    assert answer.status_code == 404
    figure(page, "Errors").get_by_role("link").click()
    expect(page).to_have_url(re.compile("#/requests\\?status=error$"))


def test_pointing_at_a_chart_tells_that_moment(page: Page, gateway: Place) -> None:
    gateway.chat("hello")
    chart = page.get_by_role("img", name=re.compile(r"^Requests\."))
    expect(chart.locator("canvas")).to_be_visible()
    moment = page.locator(".card", has=chart).locator(".when")
    expect(moment).to_be_empty()
    chart.hover()
    expect(moment).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))


def test_without_a_ledger_it_counts_since_the_start(
    opens: Opens, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("forgetful")
    models = {"demo": {"upstream": {"kind": "demo"}, "template": "plain", "price": {"per_gpu_second": 0.01}}}
    with place(folder, models, store={"url": None}) as here:
        here.chat("hello", "demo")
        page = opens(at=here)
        expect(figure(page, "Cost since start")).to_contain_text(re.compile(r"\$\d"))
        expect(figure(page, "Cost since start").get_by_role("link")).to_have_count(0)
        page.close()


def test_the_overview_leads_to_the_models(page: Page) -> None:
    expect(page.get_by_text(CHAT)).to_be_visible()
    page.get_by_role("link", name="All models").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")
