"""What a person sees on a terminal, wide or narrow, and what a pipe gets of the same."""

import json
from pathlib import Path

import pytest

from tests.cli.process import STYLE, on_terminal, run

pytestmark = pytest.mark.slow

LONG = "an-organisation/of-a-model-with-a-very-long-name-and-its-quantisation-gptq-4bit-128g"
KEYS = [
    {"name": "me", "key": "sk-0123456789abcdef"},
    {"name": "the-nightly-evaluation", "key": "sk-f0123456789abcde"},
]
GRANT = (
    "--team", "research", "--requests-per-minute", "60", "--concurrent", "4", "--budget", "dollars=20/month",
    "--budget", "gpu_seconds=3600/day", "--expires", "90d",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a long name, a key in its store, and a request."""
    folder = tmp_path_factory.mktemp("terminal")
    models = {
        "[b]mine[/b]": {"upstream": {"kind": "demo"}, "template": "chatglm2"},
        LONG: {"upstream": {"url": "http://127.0.0.1:9"}, "template": "falcon-instruct"},
    }
    data = {"auth": {"keys": KEYS}, "models": models, "teams": {"research": {}}}
    (folder / "gateway.yaml").write_text(json.dumps(data))
    (folder / "request.json").write_text(
        '{"model": "[b]mine[/b]", "messages": [{"role": "user", "content": "hi"}]}'
    )
    made = run("keys", "create", "--name", "alice", *GRANT, "--config", "gateway.yaml", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


COMMANDS = [
    ("keys list", "alice"),
    ("keys show alice", "gpu_seconds=3600/day"),
    ("check", "[b]mine[/b]"),
    ("usage", "total"),
    ("render request.json", "hi"),
    ("deploy --list", "falcon-40b-instruct-gptq"),
]


def typed(command: str) -> list[str]:
    return command.split() + ([] if command.startswith("deploy") else ["--config", "gateway.yaml"])


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("command", "holds"), COMMANDS)
def test_a_table_fits_the_terminal_and_keeps_names_whole(
    folder: Path, command: str, holds: str, columns: int
) -> None:
    shown = on_terminal(*typed(command), cwd=folder, columns=columns)
    assert shown.code in (0, 1), shown.text  # 1: nobody answers at one of the addresses
    assert holds in shown.text and "…" not in shown.text
    sentences = ("wrong: ", "\r")
    lines = [line for line in shown.text.splitlines() if not line.startswith(sentences)]
    assert max(map(len, lines)) <= columns


def test_what_had_no_room_is_named(folder: Path) -> None:
    narrow = on_terminal(*typed("keys list"), cwd=folder, columns=60).text
    assert "left out for want of room, --json has them: " in narrow
    assert "EXPIRES" in narrow.splitlines()[-1] and "EXPIRES" not in narrow.splitlines()[0]
    assert "left out" not in on_terminal(*typed("keys list"), cwd=folder, columns=160).text


@pytest.mark.parametrize(("command", "holds"), COMMANDS)
def test_a_pipe_and_a_terminal_without_colours_get_plain_text(folder: Path, command: str, holds: str) -> None:
    piped = run(*typed(command), cwd=folder)
    assert holds in piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr
    plain = on_terminal(*typed(command), cwd=folder, env={"NO_COLOR": "1"})
    assert not [style for style in STYLE.findall(plain.sent) if style.endswith("m")]


def test_an_empty_no_color_says_nothing(folder: Path) -> None:
    shown = on_terminal(*typed("check"), cwd=folder, env={"NO_COLOR": ""})
    assert [style for style in STYLE.findall(shown.sent) if style.endswith("m")]


@pytest.mark.parametrize("command", ["keys list", "keys show alice", "check", "usage", "render request.json"])
def test_json_is_the_same_on_a_terminal_and_in_a_pipe(folder: Path, command: str) -> None:
    shown = on_terminal(*typed(command), "--json", cwd=folder)
    _, brace, rest = STYLE.sub("", shown.text).partition("{" if command != "keys list" else "[")
    assert json.loads(brace + rest) == json.loads(run(*typed(command), "--json", cwd=folder).stdout)


def test_help_says_every_default_in_brackets(folder: Path) -> None:
    shown = on_terminal("serve", "--help", cwd=folder).text
    assert "[default: (plain)]" in shown and "<str>" not in shown and "<bool>" not in shown
