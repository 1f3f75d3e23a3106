"""What pages do again and again, by itself: a page that asks what the test answers."""

from __future__ import annotations

import pytest

from tests.console.browser.conftest import Opens

pytestmark = pytest.mark.browser

POLLING = """Promise.all([import('/console/hooks.js'), import('/console/lib.js')]).then(([hooks, lib]) => {
  window.asked = [];
  const ask = (signal) => new Promise((tell, fail) => {
    asked.push({tell, signal});
    signal.addEventListener('abort', () => fail(signal.reason));
  });
  const Page = () => {
    window.poll = hooks.usePoll(ask, 3600);
    return null;
  };
  lib.render(lib.html`<${Page} />`, document.createElement('div'));
})"""


def test_a_refresh_while_an_answer_is_awaited_asks_again_after_it(opens: Opens) -> None:
    page = opens("/")
    page.evaluate(POLLING)
    page.wait_for_function("asked.length === 1")
    page.evaluate("poll.refresh(); poll.refresh(); asked[0].tell('old')")
    page.wait_for_function("asked.length === 2 && poll.data === 'old'")
    page.evaluate("asked[1].tell('new')")
    page.wait_for_function("poll.data === 'new'")
    assert page.evaluate("asked.length") == 2


def test_an_answer_that_never_comes_is_given_up_and_asked_for_again(opens: Opens) -> None:
    page = opens("about:blank")
    page.clock.install()
    page.goto("/")
    page.evaluate(POLLING)
    page.wait_for_function("asked.length === 1")
    page.evaluate("poll.refresh()")
    page.clock.run_for(60_000)
    page.wait_for_function("asked.length === 2 && asked[0].signal.aborted")
    page.evaluate("asked[1].tell('new')")
    page.wait_for_function("poll.data === 'new' && poll.error === null")
