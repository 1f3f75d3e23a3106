"""The team of a key: one of those that are written, or any where none are."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from gateway.allowances import NO_LIMITS
from gateway.auth import Caller
from gateway.cli.commands import run
from gateway.core.errors import Forbidden
from gateway.limits.scopes import Scopes
from gateway.settings import settings_from
from tests.keys.gate import configured, gate

TEAMS = {"sales": {"limits": {"concurrent": 5}}, "ops": {"limits": {"concurrent": 5}}}


# --- over HTTP ---


async def test_a_key_of_a_team_that_is_not_written_is_refused(tmp_path: Path) -> None:
    async with gate(tmp_path, teams=TEAMS) as here:
        wrong = await here.admin("POST", json={"name": "ann", "team": "salse"})
        told = wrong.json()["error"]
        assert (wrong.status_code, told["param"], told["code"]) == (400, "team", "invalid_value")
        assert told["message"].endswith("no team salse in the configuration; did you mean sales?")
        assert (await here.admin("GET", "/ann")).status_code == 404

        await here.new("ann", team="sales")
        assert (await here.admin("PATCH", "/ann", json={"team": "x"})).status_code == 400
        assert (await here.admin("GET", "/ann")).json()["team"] == "sales"
        for fields in ({"team": "ops"}, {"priority": 1}, {"team": None}):
            assert (await here.admin("PATCH", "/ann", json=fields)).status_code == 200
        await here.new("bob")


async def test_where_no_teams_are_written_a_team_is_a_label(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        await here.new("ann", team="anything")
        assert (await here.admin("PATCH", "/ann", json={"team": "else"})).json()["team"] == "else"


# --- the command line ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODAL_GATEWAY_CONFIG", "gateway.yaml")
    (tmp_path / "gateway.yaml").write_text(json.dumps(configured(1, teams=TEAMS)))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_command_line_refuses_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    def tried(text: str) -> tuple[int, str]:
        return run(["keys", *text.split()]), capsys.readouterr().err

    code, said = tried("create --name ann --team salse")
    assert code != 0 and "--team: there is no team salse" in said and "did you mean sales?" in said
    assert tried("create --name ann --team sales")[0] == 0
    assert tried("update ann --team x")[0] != 0
    assert tried("update ann --team ops") == tried("update ann --priority 1") == (0, "")
    assert tried("update ann --team none") == (0, "")


# --- while it runs ---


def test_a_team_that_has_left_refuses_and_a_label_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    config = {**configured(1, teams=TEAMS), "auth": {"mode": "none"}}
    settings = settings_from(config, {})
    scopes = Scopes(settings.teams)

    def meets(team: str | None) -> list[str]:
        caller = Caller("ann", id="key_1", team=team, limits=NO_LIMITS)
        return [scope.kind for scope in scopes.of(caller, Model())]

    with caplog.at_level(logging.WARNING):
        assert meets("sales") == ["team"] and meets(None) == []
        assert caplog.text == ""
        scopes.teams = {"ops": settings.teams["ops"]}
        with pytest.raises(Forbidden, match="team sales of this key is not in the gateway's configuration"):
            meets("sales")
        assert caplog.text == ""
        scopes.teams = {}
        assert meets("label") == meets("other") == []
        assert caplog.text.count("label") == 1 and "other" not in caplog.text.replace("any other", "")


class Model:
    name = "m"
    limits = NO_LIMITS
    budgets = ()
    priced = timed = False
