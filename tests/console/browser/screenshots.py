"""Pictures of every page: ``python -m tests.console.browser.screenshots [FOLDER [SECONDS]]``.

Rule: a real gateway with its ledger, in front of containers whose answers are written below; two weeks of
requests are written into the ledger, and some minutes really happen. Each page is taken in light, dark and on
a phone. No model runs.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from gateway.core.events import Usage
from tests.conftest import ROOT
from tests.console.browser.conftest import FLAGS, PHONE, WIDE
from tests.console.browser.house import Place, asleep, place
from tests.console.browser.storyteller import ANSWERS, QUESTION, storyteller
from tests.ledger.books import books, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = ROOT / "docs" / "screenshots"
LIFE = 300.0  # seconds of requests before the first picture
BOOT = 14.0  # seconds of the container that boots in the picture
DAYS = 14
KEYS = (
    {"name": "ann", "team": "research", "owner": "Ann", "budgets": [{"dollars": 40}], "tags": ["notebooks"]},
    {"name": "ben", "team": "research", "owner": "Ben", "limits": {"requests_per_minute": 120}},
    {
        "name": "checkout-assistant",
        "team": "product",
        "budgets": [{"dollars": 25, "per": "day"}],
        "priority": 50,
    },
    {"name": "support-chat", "team": "support", "budgets": [{"gpu_seconds": 90_000, "per": "week"}]},
    {"name": "evaluation", "team": "research", "models": ["qwen3-*", "llama-*", "gpt-*"], "priority": -50},
)
PRICE = {"per_gpu_second": 0.0006}
SHARES = {"llama-3.3-70b": 5, "qwen3-8b": 8, "deepseek-coder-16b": 1}


def models(awake: str, slow: str, fast: str) -> dict[str, Any]:
    """Two that are busy, two that sleep, one of vectors."""

    def model(url: str, *aliases: str, template: str = "chatml", **upstream: Any) -> dict[str, Any]:
        return {
            "upstream": {"url": url, **upstream},
            "template": template,
            "aliases": aliases,
            "price": PRICE,
            "tools": "hermes",
        }

    sleeps = {"scaledown_window": 4}
    return {
        "llama-3.3-70b": model(awake, "gpt-4o", "gpt-4", template="llama-3", inputs_per_container=8),
        "qwen3-8b": model(awake, "gpt-4o-mini", "gpt-3.5-turbo", max_concurrency=4),
        "mistral-small-24b": model(slow, "claude-sonnet", **sleeps),
        "deepseek-coder-16b": model(fast, **sleeps),
    }


@contextmanager
def neighbourhood(folder: Path) -> Iterator[tuple[Place, Sequence[dict[str, Any]]]]:
    """The gateway, its containers, its keys and its past."""
    with ExitStack() as stack:
        awake = stack.enter_context(storyteller())
        slow = stack.enter_context(asleep(folder, awake, BOOT, 4))
        fast = stack.enter_context(asleep(folder, awake, 3, 4))
        teams = {"research": {"budgets": [{"dollars": 300}]}, "product": {}, "support": {}}
        here = stack.enter_context(place(folder, models(awake, slow, fast), teams=teams))
        keys = [_made(here, grant) for grant in KEYS]
        asyncio.run(_past(folder, keys))
        yield Place(here.url, here.admin, keys[0]["key"]), keys


def _made(here: Place, grant: dict[str, Any]) -> dict[str, Any]:
    with here.client(admin=True) as client:
        answer = client.post("/admin/keys", json=grant)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def _past(folder: Path, keys: Sequence[dict[str, Any]]) -> None:
    """Requests of the days before, more on working days and by day."""
    chance, now = random.Random(7), time.time()
    async with books("sqlite:///" + str(folder / "gateway.db"), folder / "past") as ledger:
        for number in range(2400):
            at = now - chance.uniform(0.02, DAYS) * 86_400
            there = time.gmtime(at)
            if chance.random() > (0.35 if there.tm_wday > 4 else 1) * (1 if 7 < there.tm_hour < 19 else 0.3):
                continue
            key = chance.choices(keys, weights=(5, 3, 8, 6, 2))[0]
            model = chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
            tokens = Usage(chance.randint(80, 2400), chance.randint(20, 700))
            gpu = int(tokens.completion_tokens * chance.uniform(0.02, 0.04) * 1e9)
            who = {"key_id": key["id"], "key": key["name"], "team": key["team"]}
            what = {"asked": model, "model": model, "upstream": model}
            spent = {"usage": tokens, "gpu": gpu, "gpu_source": "estimated", "cost": int(gpu * 0.0006)}
            await served(ledger, f"req_{number:024x}", at, **who, **what, **spent)


# --- the minutes that really happen ---


def live(here: Place, keys: Sequence[dict[str, Any]], over: threading.Event, seed: int) -> None:
    """One caller after another, until it is over; now and then one asks for what there is not."""
    chance = random.Random(seed)
    with httpx.Client(base_url=here.url, timeout=60, trust_env=False) as client:
        while not over.is_set():
            key = chance.choice(keys)
            model = chance.choice(("llama-3.3-70b", "qwen3-8b", "gpt-4o-mini"))
            if chance.random() < 0.01:
                model = "gpt-6"
            body = {
                "model": model,
                "stream": True,
                "messages": [{"role": "user", "content": chance.choice(ANSWERS)}],
            }
            headers = {"authorization": f"Bearer {key['key']}"}
            client.post("/v1/chat/completions", json=body, headers=headers)
            over.wait(chance.expovariate(1 / (1.5 + 1.2 * (seed % 3))) * (1.3 + math.sin(time.time() / 35)))


@contextmanager
def alive(here: Place, keys: Sequence[dict[str, Any]], callers: int = 7) -> Iterator[None]:
    over = threading.Event()
    threads = [threading.Thread(target=live, args=(here, keys, over, seed)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


# --- the pictures ---


def overview(page: Page) -> None:
    page.locator("canvas").nth(5).wait_for()
    settle(page)


def boots(page: Page) -> None:
    """One model is woken, and half-way there."""
    page.get_by_role("button", name="Wake mistral-small-24b").click()
    page.get_by_text("about 8 s left").wait_for()


def playground(page: Page) -> None:
    page.get_by_role("textbox", name=re.compile("^Message")).fill(QUESTION)
    page.get_by_role("textbox", name=re.compile("^Message")).press("Enter")
    page.get_by_text(re.compile("somebody asks it again")).first.wait_for()
    page.get_by_role("button", name="Send", exact=True).wait_for()
    if page.get_by_role("tab", name="Prompt").count():  # where there is room for it beside the chat
        page.get_by_label("Rendered prompt").wait_for()
    settle(page)


def settle(page: Page) -> None:
    page.wait_for_load_state("networkidle")


SHOTS: Sequence[tuple[str, str, Callable[[Page], None]]] = (
    ("overview", "/#/overview", overview),
    ("models", "/#/models", boots),
    ("playground", "/#/playground?model=llama-3.3-70b", playground),
    ("keys", "/#/keys", settle),
    ("usage", "/#/usage", settle),
    ("requests", "/#/requests", settle),
)
LOOKS = {"light": (WIDE, "light"), "dark": (WIDE, "dark"), "phone": (PHONE, "light")}


def take(browser: Browser, here: Place, folder: Path) -> None:
    """All pages in all looks."""
    for look, (viewport, scheme) in LOOKS.items():
        context = browser.new_context(
            base_url=here.url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
        )
        try:
            page = context.new_page()
            page.goto("/")
            page.get_by_label("Admin key").wait_for()
            page.screenshot(path=folder / f"login-{look}.png")
            context.request.post("/console/session", data={"key": here.admin})
            for name, path, ready in SHOTS:
                if name == "models":
                    here.until("mistral-small-24b", "cold")
                page.goto("about:blank")
                page.goto(path)
                ready(page)
                page.screenshot(path=folder / f"{name}-{look}.png")
        finally:
            context.close()


def main(folder: Path = FOLDER, life: float = LIFE) -> None:
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gateway-pictures-") as rooms, ExitStack() as stack:
        here, keys = stack.enter_context(neighbourhood(Path(rooms)))
        stack.enter_context(alive(here, keys))
        for sleeper in ("mistral-small-24b", "deepseek-coder-16b"):
            here.chat("hello", sleeper)  # so that the next boot has an end that is told
        time.sleep(life)  # what the charts show
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        take(browser, here, folder)
        browser.close()


if __name__ == "__main__":
    main(*(kind(given) for kind, given in zip((Path, float), sys.argv[1:], strict=False)))
