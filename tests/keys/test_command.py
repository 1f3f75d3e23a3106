"""`keys` as a person runs it: what each command prints, keeps and refuses, and what a gateway makes of it."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.commands import run
from tests.cli import process
from tests.keys.gate import ADMIN, CHAT, kept_in

CONFIG = {
    "auth": {
        "keys": [
            {"name": "own", "key": "sk-own", "team": "ops"},
            {"name": "off", "key": "x", "disabled": True},
        ]
    },
    "admin": {"key": ADMIN},
    "models": {"m": {"upstream": {"kind": "demo", "responses": ["one two three"]}}},
}
FULL = """
    --team sales --owner ann --model m --model a* --expires 2099-01-31 --requests-per-minute 60
    --tokens-per-minute 9000 --requests-per-day 500 --concurrent 2 --budget dollars=20/month
    --budget gpu_seconds=3600/week --budget tokens=1000 --priority -3 --tag blue --tag green
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gateway.yaml").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODAL_GATEWAY_CONFIG", "gateway.yaml")
    return tmp_path


class Line:
    """The command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, text: str) -> tuple[int, str, str]:
        """The exit code, and what was printed."""
        code = run(["keys", *text.split()])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, text: str) -> Any:
        code, out, err = self(f"{text} --json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def line(folder: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(capsys)


def test_a_new_key_is_alone_on_standard_output_and_its_sha256_in_the_store(folder: Path, line: Line) -> None:
    code, out, err = line("create --name ann")
    assert code == 0
    assert re.fullmatch(r"sk-[\w-]{43}\n", out)
    assert err.splitlines() == [
        "This key, ann, is shown only now: SQLite gateway.db keeps its SHA-256.",
        "A gateway that runs takes it at once.",
    ]
    kept = kept_in(folder)
    assert out.strip().encode() not in kept
    assert hashlib.sha256(out.strip().encode()).digest() in kept


def test_what_is_said_of_a_key_is_what_it_may_do(line: Line) -> None:
    made = line.json(f"create --name ann {FULL}")
    assert made.pop("key").startswith("sk-")
    assert {
        name: made[name] for name in ("name", "state", "team", "owner", "models", "priority", "tags")
    } == {
        "name": "ann",
        "state": "active",
        "team": "sales",
        "owner": "ann",
        "models": ["m", "a*"],
        "priority": -3,
        "tags": ["blue", "green"],
    }
    assert made["expires"] == "2099-01-31T00:00:00Z"
    assert made["limits"] == {
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "requests_per_day": 500,
        "concurrent": 2,
    }
    budgets = [
        (each["dollars"], each["gpu_seconds"], each["tokens"], each["per"]) for each in made["budgets"]
    ]
    assert budgets == [(20, None, None, "month"), (None, 3600, None, "week"), (None, None, 1000, "month")]
    assert line.json("show ann") == line.json(f"show {made['id']}") == made


def test_a_change_leaves_the_rest_and_none_takes_away(line: Line) -> None:
    before = line.json(f"create --name ann {FULL}")
    after = line.json(
        "update ann --concurrent none --requests-per-day 7 --team none --expires none --budget none"
    )
    assert after["limits"] == {**before["limits"], "concurrent": None, "requests_per_day": 7}
    assert (after["team"], after["expires"], after["budgets"]) == (None, None, [])
    assert (after["owner"], after["models"], after["tags"]) == ("ann", ["m", "a*"], ["blue", "green"])
    assert line.json("update ann --name anne --tag none --disable")["state"] == "disabled"
    assert line.json("update anne --enable --expires 90d")["state"] == "active"
    assert line.json("update anne --expires 2w")["state"] == "active"


def test_the_list_has_both_sorts_of_keys_and_no_secret(line: Line) -> None:
    secrets = [line("create --name ann --concurrent 2 --budget dollars=5/day")[1].strip()]
    secrets.append(line("create --name bob")[1].strip())
    secrets.append(line("rotate bob")[1].strip())
    line("revoke bob")
    rows = line.json("list")
    assert [(row["name"], row["state"]) for row in rows] == [
        ("own", "configured"),
        ("off", "disabled"),
        ("ann", "active"),
    ]
    assert [row["name"] for row in line.json("list --all")] == ["own", "off", "ann", "bob"]
    _, table, _ = line("list --all")
    assert table.splitlines()[0].split() == [
        "NAME",
        "STATE",
        "TEAM",
        "MODELS",
        "LIMITS",
        "BUDGETS",
        "EXPIRES",
        "ID",
    ]
    [ann] = [row.split() for row in table.splitlines() if row.startswith("ann")]
    assert ann[:5] == ["ann", "active", "*", "concurrent=2", "dollars=5/day"]
    for secret in (*secrets, "sk-own", ADMIN):
        assert secret not in table + json.dumps(rows) + line("show ann")[1]


def test_the_list_can_be_of_one_team_or_tag(line: Line) -> None:
    line("create --name ann --team ops --tag blue --tag green")
    line("create --name bob --team sales --tag blue")

    def names(options: str) -> list[str]:
        return [row["name"] for row in line.json(f"list {options}")]

    assert names("--team ops") == ["own", "ann"]
    assert names("--tag blue") == ["ann", "bob"]
    assert names("--tag blue --team sales") == ["bob"]
    assert names("--tag red") == []


def test_a_rotated_key_has_another_secret_and_a_revoked_name_is_free(line: Line) -> None:
    first, second = line("create --name ann")[1], line("rotate ann")[1]
    assert first != second
    assert line.json("revoke ann")["state"] == "revoked"
    assert line("create --name ann")[0] == 0
    assert len(line.json("list --all")) == 4


MISTAKES = [
    ("create --name ann", "there is a key ann already"),
    ("create --name eve --budget 20", "--budget must be as in dollars=20/month, .*"),
    ("create --name eve --budget dollars=1.2.3", r"--budget: 1\.2\.3 is no number"),
    ("create --name eve --budget tokens=1.5", r"--budget: 1\.5 is no number"),
    ("create --name eve --expires soon", "--expires: must be as in 90d, .*"),
    (
        "create --name eve --concurrent many",
        "--concurrent must be a whole number of at most 15 digits, or none",
    ),
    ("create --name eve --concurrent 0", "limits.concurrent: must be 1 or more"),
    (f"create --name eve --concurrent {'9' * 5000}", "--concurrent must be a whole number of .*"),
    ("create --name eve --expires 999999999d", "--expires: must be within the years 1970 to 9998"),
    (f"create --name eve --expires {'9' * 5000}d", "--expires: must be as in 90d, .*"),
    ("create --name eve --expires 9999-12-31", "expires: must be within the years 1970 to 9998"),
    ("create --name eve --expires 0001-01-01T00:00+14:00", "--expires: this time has passed; .*"),
    ("create --name eve --expires 2020-01-01", "--expires: this time has passed; .*"),
    ("update ann --expires 0d", "--expires: this time has passed; .*"),
    ("create --name own", "--name: a key of the configuration has this name"),
    ("update ann --name off", "--name: a key of the configuration has this name"),
    ("create --name config:zz", "--name: must not begin with config:, key_ or oidc:, as ids do"),
    ("update ann --name key_00", "--name: must not begin with config:, key_ or oidc:, as ids do"),
    ("create --name eve --priority 101", ".*--priority.*"),
    ("update ann", "nothing to change was given; .*"),
    ("update eve --concurrent 1", "there is no key eve"),
    ("update ann --name own2 --budget dollars=0", "budgets.*"),
    ("show eve", "there is no key eve"),
    ("revoke eve", "there is no key eve"),
    ("rotate eve", "there is no key eve"),
    (f"show {'e' * 5000}", f"there is no key {'e' * 61}\\.\\.\\."),
    ("show \0\x1b[2J", r"there is no key \?\?\[2J"),
    ("update own --disable", "own is a key of the configuration: it is changed there"),
    ("revoke config:off", "off is a key of the configuration: it is changed there"),
    ("rotate own", "own is a key of the configuration: it is changed there"),
]


def test_a_key_of_the_configuration_is_shown_as_well(line: Line) -> None:
    own, off = line.json("list")
    assert line.json("show own") == line.json("show config:own") == own
    assert line.json("show off") == off
    assert "sk-own" not in line("show own")[1]


def test_a_key_of_the_store_goes_before_one_of_the_configuration_with_its_name(
    folder: Path, line: Line
) -> None:
    made = line.json("create --name ann")
    keys = [{"name": "ann", "key": "sk-other"}]
    (folder / "gateway.yaml").write_text(json.dumps({**CONFIG, "auth": {"keys": keys}}))
    assert line.json("show ann")["id"] == made["id"]
    assert line.json("show config:ann")["state"] == "configured"
    assert line.json("revoke ann")["id"] == made["id"]
    assert line.json("show ann")["id"] == "config:ann"


def test_a_mistake_is_one_line_and_changes_nothing(line: Line) -> None:
    line("create --name ann")
    before = line.json("list --all")
    for text, said in MISTAKES:
        code, out, err = line(text)
        assert (code, out) == (2, ""), text
        assert re.fullmatch(f"error: {said}\n", err), (text, err)
    assert line.json("list --all") == before


def test_a_store_that_cannot_be_used_is_one_line_without_its_password(folder: Path, line: Line) -> None:
    url = "postgresql://me:canary-password@127.0.0.1:1/books"
    (folder / "gateway.yaml").write_text(json.dumps({**CONFIG, "store": {"url": url}}))
    for text in ("list", "create --name ann", "show ann", "update ann --disable", "revoke ann", "rotate ann"):
        code, out, err = line(text)
        assert (code, out) == (2, "")
        assert err == "error: PostgreSQL 127.0.0.1/books does not answer\n"


# --- with a gateway that runs ---


def test_a_running_gateway_hears_of_each_command(folder: Path, line: Line) -> None:
    def ask(client: Any, key: str) -> int:
        answer = client.post("/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"})
        return int(answer.status_code)

    def refused(client: Any, key: str) -> bool:
        until = time.monotonic() + process.BOUND
        while ask(client, key) == 200 and time.monotonic() < until:
            time.sleep(0.02)
        return ask(client, key) == 401

    with (
        process.running("serve", "--port", "0", cwd=folder, until="see also") as gateway,
        gateway.client() as client,
    ):
        first = line("create --name ann")[1].strip()
        assert ask(client, first) == 200
        second = line("rotate ann")[1].strip()
        assert ask(client, second) == 200  # it has looked, so it knows of the first too
        assert ask(client, first) == 401
        line("update ann --disable")
        assert refused(client, second)
        line("update ann --enable")
        assert ask(client, second) == 200
        line("revoke ann")
        assert refused(client, second)
        code, out, err = gateway.stop()
    assert code == 0
    for secret in (first, second, ADMIN, "sk-own"):
        assert secret not in gateway.shown + out + err
