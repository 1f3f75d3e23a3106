"""``deploy``, ``add`` and ``backend`` as a person runs them: no account, no GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.settings import load
from tests.cli.process import BOUND, COMMAND, environment, run
from tests.conftest import ROOT

NEEDS_MODAL = pytest.mark.skipif(
    importlib.util.find_spec("modal") is None, reason="the Modal SDK is not installed"
)
SET = {"MODAL_KEY": "wk-1", "MODAL_SECRET": "ws-1"}


def test_the_list_shows_what_was_verified(tmp_path: Path) -> None:
    shown = run("deploy", "--list", cwd=tmp_path).stdout.splitlines()
    assert shown[0].split() == ["NAME", "MODEL", "ENGINE", "GPU", "SERVE", "VERIFIED"]
    assert any(line.startswith("qwen3-8b ") and line.endswith(" built-offline") for line in shown)
    data = json.loads(run("deploy", "--list", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in data] == [line.split()[0] for line in shown[1:]]


@NEEDS_MODAL
def test_deploying_without_a_token_says_how_to_get_one(tmp_path: Path) -> None:
    done = run("deploy", "qwen3-8b", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "qwen3-8b: Qwen/Qwen3-8B at b968826d9c46dd6066d109eabc6255188de91218",
        "  engine      vllm, as a Modal Server, with a proxy token",
        "  gpu         L40S or A100-40GB",
        "  containers  0 to any number, idle ones go after 600 s",
        "  verified    built-offline",
    ]
    assert "warning: " not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no Modal token here: make an account at modal.com")


@NEEDS_MODAL
def test_a_file_of_one_s_own_is_deployed_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{model: me/mine, engine: transformers, gpu: L4}")
    done = run("deploy", "mine.yaml", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.stdout.startswith("mine: me/mine at main\n")
    assert "warning: revision main is not pinned" in done.stderr
    assert "no Modal token here" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deploy"], "name a preset or a file; "),
        (["deploy", "qwen3-8"], "there is no preset qwen3-8; did you mean qwen3-8b?"),
        (["deploy", "frobnicate"], "there is no preset frobnicate (a file of your own ends in .yaml)"),
        (["deploy", "wrong.yaml"], "wrong.yaml: gpu: there is no 'H10'; did you mean H100?"),
        (["add", "nowhere.yaml"], "there is no file nowhere.yaml"),
        (["backend", "demo"], "backend runs on this machine alone, so say --local"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "wrong.yaml").write_text("{model: a, engine: transformers, gpu: H10}")
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


@NEEDS_MODAL
def test_the_walk_through_shows_what_the_commands_print(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    listed = run("deploy", "--list", cwd=tmp_path).stdout.splitlines(keepends=True)
    assert "".join(["```text\n", *listed[:3], "```\n"]) in page
    deployed = run("deploy", "qwen3-8b", cwd=tmp_path, env={"HOME": str(tmp_path)})
    shown = page.partition(f"```text\n{deployed.stdout}")[2].partition("```\n")[0].splitlines()
    assert shown[-1] == deployed.stderr.splitlines()[-1]
    url = "https://ecorp--qwen3-8b-served.us-east.modal.direct"
    added = run("add", "qwen3-8b", "--url", url, cwd=tmp_path).stdout
    assert f"```text\n{added}```\n" in page


# --- add ---


def test_add_prints_the_same_entry_as_json(tmp_path: Path) -> None:
    text, data = (run("add", "demo", *more, cwd=tmp_path).stdout for more in ((), ("--json",)))
    assert json.loads(data) == {"models": yaml.safe_load(text)}


def test_add_prints_an_entry_and_writes_nothing(tmp_path: Path) -> None:
    done = run(
        "add", "qwen3-8b", "--url", "https://ecorp--qwen3-8b-served.us-east.modal.direct", cwd=tmp_path
    )
    assert list(tmp_path.iterdir()) == []
    assert yaml.safe_load(done.stdout) == {
        "qwen3-8b": {
            "from": "qwen3-8b",
            "upstream": {
                "url": "https://ecorp--qwen3-8b-served.us-east.modal.direct/v1",
                "modal_key": "${MODAL_KEY}",
                "modal_secret": "${MODAL_SECRET}",
                "first_event_timeout": 1800,
            },
        }
    }


OLD = """\
# mine
auth: {mode: none}
models: # all of them
  a: # first
    upstream: {kind: demo}
default_model: a
"""


def test_add_writes_its_lines_and_leaves_the_others(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(OLD)
    done = run("add", "chatglm2-6b", "--write", "--config", "gateway.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert config.read_text() == OLD.replace("of them\n", f"of them\n{done.stdout}")
    settings = load(config, SET)
    assert settings.models["chatglm2-6b"].template == "chatglm2"
    assert list(tmp_path.iterdir()) == [config]
    again = run("add", "chatglm2-6b", "--write", "--config", "gateway.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "already has models.chatglm2-6b" in again.stderr


def test_add_makes_the_file_if_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{model: me/mine, engine: transformers, template: plain}")
    assert run("add", "mine.yaml", "--write", "--config", "new.yaml", cwd=tmp_path).returncode == 0
    assert load(tmp_path / "new.yaml", SET).models["mine"].template == "plain"


def test_add_makes_the_folder_too_and_check_accepts_what_it_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        done = run("add", "chatglm2-6b", "--url", url, "--write", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1)
        assert done.stderr.endswith(" check\n")
        checked = run("check", cwd=tmp_path, env={**SET, "GATEWAY_API_KEY": "sk-1"})
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "all is well")
    assert load(tmp_path / "config" / "gateway.yaml", SET).models["chatglm2-6b"].template == "chatglm2"


@pytest.mark.parametrize("comment", ["", " # all of them"])
def test_add_keeps_the_line_ends_of_the_file(tmp_path: Path, comment: str) -> None:
    config = tmp_path / "gateway.yaml"
    old = f"models:{comment}\n  a:\n    upstream: {{kind: demo}}\n".replace("\n", "\r\n").encode()
    config.write_bytes(old)
    done = run("add", "chatglm2-6b", "--write", "--config", "gateway.yaml", cwd=tmp_path)
    first, _, rest = old.partition(b"\r\n")
    assert config.read_bytes() == first + b"\r\n" + done.stdout.replace("\n", "\r\n").encode() + rest


def test_add_leaves_no_folder_behind_where_the_entry_would_not_load(tmp_path: Path) -> None:
    into = ("--write", "--config", "a/b/gateway.yaml")
    done = run("add", "chatglm2-6b", "--url", "ftp://host", *into, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("nothing was written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    done = run("add", "chatglm2-6b", "--write", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: cannot write config/gateway.yaml: ")


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("models: {a: {upstream: {kind: demo}}}\n", "has no line `models:`"),
        ("models:\n    a: {upstream: {kind: demo}}\n", "indents models by 4"),
        ("models:\n  a: {upstrem: {}}\n", "unknown key; did you mean upstream"),
        ("[]\n", "is no configuration"),
        ("models: [\n", "is not valid YAML"),
    ],
)
def test_add_writes_nothing_that_would_not_load(tmp_path: Path, old: str, said: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(old)
    done = run("add", "qwen3-8b", "--write", "--config", "gateway.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert config.read_text() == old
    assert list(tmp_path.iterdir()) == [config]


def test_check_looks_into_the_file_that_facts_come_from(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{model: me/mine, engine: transformers, template: plain, gpu: A10G}")
    models = {"m": {"from": "mine.yaml", "upstream": {"kind": "demo"}}}
    (tmp_path / "c.yaml").write_text(json.dumps({"auth": {"mode": "none"}, "models": models}))
    done = run("check", "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "wrong: models.m.from: mine.yaml: gpu: there is no 'A10G'; did you mean A10?" in done.stdout
    (tmp_path / "mine.yaml").write_text("{model: me/mine, engine: transformers, template: plain, gpu: A10}")
    done = run("check", "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: models.m.from: revision main is not pinned" in done.stdout


# --- backend ---


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can handle")
def test_the_container_code_runs_here(tmp_path: Path) -> None:
    command = [*COMMAND, "backend", "demo", "--local", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            answered = httpx.post(ready["url"], json={"prompt": "repeat: hello"}, trust_env=False)
            assert answered.json()["prompt"] == "hello"
            inside = Path(f"/proc/{ready['pid']}/environ")
            assert not inside.exists() or b"DO_NOT_TRACK=1" in inside.read_bytes().split(b"\0")
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")


def test_another_engine_takes_the_place_of_one_that_is_not_here(tmp_path: Path) -> None:
    done = run("backend", "qwen3-8b", "--local", cwd=tmp_path, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "the engine vllm is the program vllm, which is not installed here" in done.stderr
