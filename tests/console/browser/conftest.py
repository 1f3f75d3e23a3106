"""One gateway and one browser for all tests of the console, and pages that watch what they do.

Rule: a page may log no error, throw none and ask no other host; a test that provokes an error says which.
Tests here are plain functions: Playwright's own loop runs while they do. Without Playwright or Chromium they
are skipped, and say why.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.console.browser.actor import MODEL, Actor, acting
from tests.console.browser.house import Place, demo, house, place

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE = 15_000  # milliseconds that a page gets to show what is expected


class Left(pytest.Module):
    """A module of tests that is skipped as a whole."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        pytest.skip("playwright is not installed: `make test-browser` installs it", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Without Playwright, which `make test` does not install, no module here can be imported."""
    return None if find_spec("playwright") else Left.from_parent(parent, path=module_path)


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The gateway that all tests share; see ``house.models`` for what it serves."""
    with house(tmp_path_factory.mktemp("console")) as found:
        yield found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    from playwright.sync_api import expect, sync_playwright

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page and what went wrong in it; ``home`` is the only origin that it may ask."""

    page: Page
    home: str
    allowed: re.Pattern[str] | None
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda message: self._said(message.type, message.text, message.location))
        self.page.on("pageerror", lambda error: self.faults.append(f"threw {error}"))
        self.page.on("request", lambda request: self._requested(request.url))

    def _said(self, kind: str, text: str, place: Mapping[str, Any]) -> None:
        if kind in ("error", "warning") and not (self.allowed and self.allowed.search(text)):
            self.faults.append(f"{kind}: {text} ({place['url']})")

    def _requested(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.home:
            self.faults.append(f"asked {url}")


Opens = Callable[..., "Page"]
"""``opens("/#/models", allowed="404", phone=True, dark=True, login=False, at=place)``: a page of its own.

Further options go to the browser's context. ``allowed`` is a pattern of errors that the test provokes.
"""


@pytest.fixture
def opens(browser: Browser, gateway: Place) -> Iterator[Opens]:
    """Opens pages, each with cookies of its own; afterwards none of them may have gone wrong."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def open_page(path: str = "/", *, login: bool = True, at: Place | None = None, **more: Any) -> Page:
        there, allowed = at or gateway, more.pop("allowed", None)
        context = browser.new_context(
            base_url=there.url,
            viewport=PHONE if more.pop("phone", False) else WIDE,
            color_scheme="dark" if more.pop("dark", False) else "light",
            **more,
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        if login:
            proof = {"key": there.admin} if there.admin else {}
            answer = context.request.post("/console/session", data=proof)
            assert answer.ok, answer.text()
        visit = Visit(context.new_page(), there.url, re.compile(allowed) if allowed else None)
        visits.append(visit)
        visit.watch()
        visit.page.goto(path)
        return visit.page

    try:
        yield open_page
        faults = [fault for visit in visits for fault in visit.faults]
    finally:
        for context in contexts:
            context.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def page(opens: Opens) -> Page:
    """The console at a wide window, logged in."""
    return opens()


@pytest.fixture(scope="package")
def demo_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, str]]:
    """A running ``modal-gateway demo``, which is open to this machine, and its one-time address."""
    with demo(tmp_path_factory.mktemp("demo")) as found:
        yield found


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Actor]]:
    """A gateway whose only model is an actor."""
    with acting() as actor:
        model = {"upstream": {"kind": "openai", "url": actor.url}, "max_output_tokens": 4096}
        with place(tmp_path_factory.mktemp("stage"), {MODEL: model}) as found:
            yield found, actor


@pytest.fixture(scope="package")
def faults_of() -> Callable[[Page], Sequence[str]]:
    """What axe-core finds on a page that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()

    def serious(page: Page) -> Sequence[str]:
        found = axe.run(page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    return serious
