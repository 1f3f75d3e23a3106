"""Keys: made and seen once, used, changed, given another secret, and ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.browser.conftest import Opens
from tests.console.browser.holders import ask, booked, key_of, new_key
from tests.console.browser.house import OWN, Place, place

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)>"


def opened(page: Page, name: str) -> Locator:
    """The drawer of a key."""
    page.get_by_role("button", name=name, exact=True).click()
    return page.get_by_role("dialog", name=name)


def form(page: Page) -> Locator:
    page.get_by_role("button", name="New key").click()
    return page.get_by_role("dialog", name="New key")


def secret_of(page: Page, name: str) -> str:
    """What the dialog shows, which is closed then."""
    dialog = page.get_by_role("dialog", name=f"API key of {name}")
    secret = dialog.get_by_label("API key", exact=True).input_value()
    assert re.fullmatch(r"sk-[\w-]{43}", secret)
    dialog.get_by_role("button", name="I have saved it").click()
    expect(dialog).to_have_count(0)
    return secret


def test_a_key_is_made_with_all_that_it_may_do(opens: Opens, gateway: Place) -> None:
    page = opens("/#/keys")
    new = form(page)
    for label, text in {"Name": "made-1", "Team": "research", "Owner": "Somebody", "Priority": "-5"}.items():
        new.get_by_label(label).fill(text)
    new.get_by_role("button", name="Remove the model *").click()
    new.get_by_label("Models").fill("chatglm*, gpt-4o-mini")
    new.get_by_label("Models").press("Enter")
    new.get_by_label("Tags").fill("interns")
    new.get_by_label("Requests per minute").fill("600")
    new.get_by_role("button", name="Add a budget").click()
    new.get_by_label("Amount of budget 1").fill("12.5")
    new.get_by_label("Period of budget 1").select_option("week")
    new.get_by_label("Expires").fill("2031-02-03T04:05")
    new.get_by_role("button", name="Create key").click()
    secret_of(page, "made-1")
    key = key_of(gateway, "made-1")
    assert (key["team"], key["owner"], key["priority"], key["tags"]) == (
        "research",
        "Somebody",
        -5,
        ["interns"],
    )
    assert key["models"] == ["chatglm*", "gpt-4o-mini"]
    assert {name: value for name, value in key["limits"].items() if value} == {"requests_per_minute": 600}
    assert key["budgets"] == [{"dollars": 12.5, "tokens": None, "gpu_seconds": None, "per": "week"}]
    assert key["expires"].startswith("2031-02-0")
    expect(opened(page, "made-1")).to_contain_text("600 requests/min")


def test_a_secret_is_seen_once_and_works(opens: Opens, gateway: Place) -> None:
    page = opens("/#/keys")
    form(page).get_by_label("Name").fill("once")
    page.get_by_role("button", name="Create key").click()
    shown = page.get_by_role("dialog", name="API key of once")
    expect(shown).to_contain_text("shown only once")
    for _ in range(3):
        page.keyboard.press("Escape")  # is no way to lose it
    expect(shown).to_be_visible()
    secret = secret_of(page, "once")
    assert ask(gateway, secret).status_code == 200
    places = "document.documentElement.outerHTML, {...localStorage}, {...sessionStorage}, location.href"
    kept = f"JSON.stringify([{places}])"
    assert secret not in page.evaluate(kept)
    page.reload()
    expect(page.get_by_role("button", name="once", exact=True)).to_be_visible()
    assert secret not in page.evaluate(kept)
    with gateway.client(admin=True) as client:
        assert secret not in client.get("/admin/keys").text


def test_an_edit_sends_what_was_changed_and_nothing_else(opens: Opens, gateway: Place) -> None:
    new_key(
        gateway, "edited", limits={"concurrent": 4, "requests_per_day": 9000}, expires="2031-02-03T04:05:06Z"
    )
    page = opens("/#/keys")
    sent: list[str] = []
    page.on("request", lambda request: request.method == "PATCH" and sent.append(request.post_data or ""))
    opened(page, "edited").get_by_role("button", name="Edit").click()
    edit = page.get_by_role("dialog", name="Edit edited")
    edit.get_by_label("Concurrent requests").fill("8")
    edit.get_by_label("Requests per day").fill("")
    edit.get_by_label("Owner").fill("New owner")
    edit.get_by_role("button", name="Save").click()
    expect(edit).to_have_count(0)
    [body] = map(json.loads, sent)
    assert body == {"owner": "New owner", "limits": {"concurrent": 8, "requests_per_day": None}}
    key = key_of(gateway, "edited")
    assert key["limits"]["concurrent"] == 8 and key["limits"]["requests_per_day"] is None
    assert key["expires"] == "2031-02-03T04:05:06Z"


def test_another_secret_ends_the_old_one(opens: Opens, gateway: Place) -> None:
    old = new_key(gateway, "rotated")
    assert ask(gateway, old).status_code == 200
    page = opens("/#/keys")
    opened(page, "rotated").get_by_role("button", name="Rotate").click()
    question = page.get_by_role("dialog", name="Rotate rotated?")
    question.get_by_role("button", name="Rotate").click()
    new = secret_of(page, "rotated")
    assert ask(gateway, old).status_code == 401
    assert ask(gateway, new).status_code == 200


def test_a_key_is_disabled_enabled_and_revoked(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "ending")
    page = opens("/#/keys")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="ending", exact=True))
    opened(page, "ending").get_by_role("button", name="Disable").click()
    page.get_by_role("dialog", name="Disable ending?").get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("disabled")
    assert ask(gateway, secret).status_code == 401
    opened(page, "ending").get_by_role("button", name="Enable").click()
    expect(row).to_contain_text("active")
    assert ask(gateway, secret).status_code == 200
    opened(page, "ending").get_by_role("button", name="Revoke").click()
    question = page.get_by_role("dialog", name="Revoke ending?")
    question.get_by_role("button", name="Cancel").click()
    assert ask(gateway, secret).status_code == 200
    page.get_by_role("dialog", name="ending").get_by_role("button", name="Revoke").click()
    question.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert ask(gateway, secret).status_code == 401
    page.get_by_label("State").select_option("revoked")
    expect(row).to_contain_text("revoked")
    assert opened(page, "ending").get_by_role("button").all_text_contents() == [
        ""
    ]  # closing it is all that is left


def test_keys_of_the_configuration_are_read_only(opens: Opens, gateway: Place) -> None:
    page = opens("/#/keys")
    drawer = opened(page, "own")
    expect(drawer).to_contain_text("From the configuration")
    assert drawer.get_by_role("button").all_text_contents() == [""]
    assert OWN not in page.content()


def test_where_no_key_is_needed_the_page_says_that_keys_guard_nothing(
    opens: Opens, demo_gateway: tuple[Place, str]
) -> None:
    page = opens("/#/keys", at=demo_gateway[0])
    expect(page.get_by_text("keys guard nothing")).to_be_visible()
    form(page).get_by_label("Name").fill("for-nothing")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("dialog").get_by_text("keys guard nothing")).to_be_visible()
    secret_of(page, "for-nothing")


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Name", "", "Must not be empty."),
        ("Name", "own", "A key of the configuration has this name"),
        ("Priority", "300", "Must be 100 or less."),
        ("Requests per minute", "many", "Must be a whole number."),
        ("Expires", "2020-01-01T00:00", "This time has passed"),
        ("Amount of budget 1", "-3", "Must be more than 0."),
    ],
)
def test_what_is_refused_is_said_at_its_field(opens: Opens, label: str, text: str, said: str) -> None:
    page = opens("/#/keys", allowed="400")
    new = form(page)
    new.get_by_label("Name").fill("refused")
    if "budget" in label:
        new.get_by_role("button", name="Add a budget").click()
    field = new.get_by_label(label)
    field.fill(text)
    new.get_by_role("button", name="Create key").click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile(re.escape(said)))


def test_a_name_that_is_taken_is_said_at_the_name(opens: Opens, gateway: Place) -> None:
    new_key(gateway, "taken")
    page = opens("/#/keys", allowed="409")
    new = form(page)
    new.get_by_label("Name").fill("taken")
    new.get_by_role("button", name="Create key").click()
    expect(new.get_by_label("Name")).to_have_accessible_description(
        re.compile("There is a key `taken` already")
    )


def test_a_budget_shows_what_is_used_of_it(opens: Opens, gateway: Place) -> None:
    secret = new_key(gateway, "spender", budgets=[{"tokens": 1_000_000, "per": "day"}])
    used = ask(gateway, secret).json()["usage"]["total_tokens"]
    booked(gateway, 1, key="spender")
    page = opens("/#/keys")
    bar = page.get_by_role("meter", name="Budget of spender")
    expect(bar).to_have_attribute("aria-valuetext", f"{used} of 1M tokens per day")


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway with budgets of a team and of a model."""
    models = {"m": {"upstream": {"kind": "demo"}, "budgets": [{"dollars": 5}]}}
    research = {"budgets": [{"tokens": 5000, "per": "day"}]}
    with place(tmp_path_factory.mktemp("teams"), models, teams={"research": research}) as found:
        yield found


def test_budgets_of_teams_and_models_are_there_too(opens: Opens, teams: Place) -> None:
    secret = new_key(teams, "member", team="research")
    used = [ask(teams, secret, "m").json()["usage"]["total_tokens"] for _ in range(2)]
    booked(teams, 2, key="member")
    page = opens("/#/keys", at=teams)
    team = page.get_by_role("meter", name="Budget of team research")
    expect(team).to_have_attribute("aria-valuetext", f"{sum(used)} of 5,000 tokens per day")
    model = page.get_by_role("meter", name="Budget of model m")
    expect(model).to_have_attribute("aria-valuetext", "$0.00 of $5.00 per month")


def test_a_team_that_is_none_is_said_at_the_team(opens: Opens, teams: Place) -> None:
    page = opens("/#/keys", at=teams, allowed="400")
    new = form(page)
    new.get_by_label("Name").fill("nobody")
    new.get_by_label("Team").fill("reserch")
    new.get_by_role("button", name="Create key").click()
    expect(new.get_by_label("Team")).to_have_accessible_description(re.compile("no team reserch"))


def test_keys_are_found_and_the_address_says_by_what(opens: Opens, gateway: Place) -> None:
    new_key(gateway, "needle", tags=["haystack"])
    page = opens("/#/keys")
    page.get_by_label("Search").fill("HAYst")
    expect(page.get_by_role("table").get_by_role("button", name="needle")).to_be_visible()
    expect(page.get_by_role("button", name="own", exact=True)).to_have_count(0)
    expect(page).to_have_url(re.compile("q=HAYst"))
    page.reload()
    expect(page.get_by_role("button", name="own", exact=True)).to_have_count(0)
    page.get_by_label("Search").fill("no such key")
    expect(page.get_by_text("No matching keys")).to_be_visible()


def test_what_people_wrote_is_text(opens: Opens, gateway: Place) -> None:
    new_key(gateway, EVIL, owner=EVIL, tags=[EVIL], team="'\"><script>alert(1)</script>")
    page = opens("/#/keys")
    drawer = opened(page, EVIL)
    expect(drawer).to_contain_text(EVIL)
    expect(drawer).to_contain_text("<script>alert(1)</script>")
    drawer.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"The key {EVIL} stops working for good")
    assert page.locator("img, body script").count() == 0


def test_a_key_is_made_with_the_keyboard_alone(opens: Opens, gateway: Place) -> None:
    page = opens("/#/keys")
    button = page.get_by_role("button", name="New key")
    expect(button).to_be_visible()
    _tab_to(page, button)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("typed")
    models = page.get_by_label("Models")
    _tab_to(page, models)
    page.keyboard.press("Backspace")  # takes the last word away
    page.keyboard.type("chatglm*")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="New key")).to_be_visible()
    page.keyboard.press("Enter")
    kept = page.get_by_role("button", name="I have saved it")
    expect(kept).to_be_visible()
    _tab_to(page, kept)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    assert key_of(gateway, "typed")["models"] == ["chatglm*"]


def _tab_to(page: Page, target: Locator) -> None:
    for _ in range(60):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("the keyboard does not lead there")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_anybody_out(
    opens: Opens, gateway: Place, faults_of: Callable[[Page], Sequence[str]], dark: bool
) -> None:
    name = f"all-{dark}"
    grant = {"limits": {"concurrent": 2}, "budgets": [{"tokens": 5}], "tags": ["one"], "team": "research"}
    new_key(gateway, name, **grant)
    page = opens(
        "/#/keys", dark=dark, reduced_motion="reduce"
    )  # colours are looked at when they have come to rest
    expect(page.get_by_role("button", name=name)).to_be_visible()
    assert not faults_of(page)
    opened(page, name).get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Name")).to_be_focused()
    assert not faults_of(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name=name)).to_be_visible()
    assert not faults_of(page)


def test_on_a_phone_the_table_scrolls_and_not_the_page(opens: Opens, gateway: Place) -> None:
    new_key(
        gateway,
        "a-key-with-a-rather-long-name-for-a-small-telephone",
        team="research",
        budgets=[{"dollars": 3}],
    )
    page = opens("/#/keys", phone=True)
    expect(page.get_by_role("table")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.get_by_role("region", name="Keys")
    assert box.evaluate("element => element.scrollWidth > element.clientWidth")
    form(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.get_by_role("dialog").evaluate("element => element.scrollWidth <= element.clientWidth")
