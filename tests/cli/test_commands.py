"""The commands that end by themselves, and the one line that each mistake is answered with."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import gateway
from gateway.cli.commands import run as run_here
from gateway.cli.serving import Served, banner
from gateway.cli.show import CommandError
from gateway.cli.sources import Source
from gateway.settings import load
from tests.cli.process import BOUND, run
from tests.conftest import ROOT

URL = "http://127.0.0.1:9"
MODEL = {"upstream": {"url": URL}, "template": "plain"}
OPEN = {"auth": {"mode": "none"}}
FILES: dict[str, Any] = {
    "good.yaml": OPEN | {"models": {"m": MODEL}},
    "keyless.yaml": {"models": {"m": MODEL}},
    "no-keys.yaml": {"auth": {"keys": []}, "models": {"m": MODEL}},
    "far.yaml": OPEN | {"models": {"m": {"frobnicate": 2, "upstream": {"url": URL}}}},
    "typo.yaml": OPEN | {"models": {"m": {"upstrem": {"url": URL}}}},
    "template.yaml": OPEN | {"models": {"m": MODEL | {"template": "chatmll"}}},
    "tokenizer.yaml": OPEN | {"models": {"m": MODEL | {"tokenizer": "nowhere"}}},
    "variable.yaml": OPEN | {"models": {"m": {"upstream": {"url": "${NOT_SET}"}}}},
    "request.json": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "seventeen.json": {"messages": [{"role": "user", "content": "hi"}], "stop": [str(n) for n in range(17)]},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(json.dumps(content))  # JSON is YAML
    (tmp_path / "broken.yaml").write_text("models: {")
    (tmp_path / "broken.json").write_text('{"messages": [}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- mistakes ---

CREATE = r'export GATEWAY_API_KEY="\$\(.+ keys create --name me\)"'
TRY = "Try `"
MISTAKES = [
    ("bogus", rf"No such command 'bogus'\. {TRY}modal-gateway --help`\."),
    ("serv", r"No such command 'serv'\. Did you mean 'serve'\?.*"),
    ("serve --bogus", rf"No such option: --bogus.* {TRY}modal-gateway serve --help`\."),
    ("serve --port 65536", r"Invalid value for '--port': .*65535\. .*"),
    ("serve --port x", r"Invalid value for '--port': .*"),
    ("serve --workers 0", r"Invalid value for '--workers': .*1\. .*"),
    ("serve --url http://x --kind modal", r"Invalid value for '--kind': .*"),
    ("serve", r"there is no config/gateway\.yaml here: give --config FILE .*serve --url URL.* demo`"),
    ("check", r"there is no config/gateway\.yaml here: .*"),
    ("serve --config nowhere.yaml", r"cannot read nowhere\.yaml: No such file or directory"),
    ("serve --config broken.yaml", r"broken\.yaml is not valid YAML at line 1, column 10: .*"),
    ("serve --config typo.yaml", r"typo\.yaml: models\.m\.upstrem: unknown key; did you mean upstream.*"),
    ("serve --config far.yaml", r"far\.yaml: models\.m\.frobnicate: unknown key"),
    ("serve --config variable.yaml", r"variable\.yaml: models\.m\.upstream\.url: .* NOT_SET is not set.*"),
    ("serve --config template.yaml --port 0", r"models\.m\.template: .*'chatmll'.*chatml.*"),
    ("serve --config tokenizer.yaml --port 0", r"models\.m\.tokenizer: .*"),
    (
        "serve --config keyless.yaml --port 0",
        rf"auth\.mode is keys, but auth\.keys has no key\. Create one: {CREATE}",
    ),
    (
        "serve --config no-keys.yaml --port 0",
        r"auth\.mode is keys, but .* keys create --name me \(and put .*auth\.keys\)",
    ),
    (
        "serve --config good.yaml --host 0.0.0.0 --port 0",
        r"auth\.mode is none, .*--host 0\.0\.0\.0.*--insecure-no-auth",
    ),
    (
        "serve --url http://x --host 0.0.0.0 --port 0",
        rf"--host 0\.0\.0\.0 is reachable .*Create one: {CREATE}",
    ),
    ("serve --url ftp://x", r"models\.my-model\.upstream\.url: must be a URL that begins with http.*"),
    ("serve --url http://x --template nope --port 0", r"models\.my-model\.template: .*'nope'.*"),
    ("serve --url http://x --kind openai", r"--kind openai needs --model: .*"),
    ("serve --url http://x --kind openai --model m --template plain", r"--template has no meaning with .*"),
    ("serve --url http://x --config good.yaml", r"--config and --url exclude each other"),
    ("serve --model m --config good.yaml", r"--model goes with --url; a file has it under models"),
    ("serve --kind prompt --config good.yaml", r"--kind goes with --url; .*"),
    (
        "serve --config good.yaml --host no.such.host.invalid",
        r"cannot listen at --host no\.such\.host\.invalid .*",
    ),
    ("serve --config good.yaml --ssl-keyfile k.pem", r"--ssl-keyfile needs --ssl-certfile"),
    (
        "serve --config good.yaml --ssl-certfile nowhere.pem",
        r"--ssl-certfile nowhere\.pem cannot be used: No such .*",
    ),
    ("serve --config good.yaml --ssl-certfile good.yaml", r"--ssl-certfile good\.yaml cannot be used: .*"),
    ("render nowhere.json --config good.yaml", r"cannot read nowhere\.json: No such file or directory"),
    ("render broken.json --config good.yaml", r".*JSON.*"),
    ("render seventeen.json --config good.yaml", r".*stop.*16.*"),
    ("render request.json --config good.yaml --model n", r"The model `n` does not exist.*"),
    ("render --config good.yaml", r"Missing argument .*FILE.*"),
    ("keys", rf"Missing command\. {TRY}modal-gateway keys --help`\."),
    ("keys create", rf"Missing option '--name'\. {TRY}modal-gateway keys create --help`\."),
    ("usage --format xml --config good.yaml", r"Invalid value for '--format': 'xml' is not one of .*"),
    ("usage --json --format csv --config good.yaml", r"--json and --format csv exclude each other"),
    ("keys create --name ''", r"--name must be a name that can be read"),
    ("demo --port -1", r"Invalid value for '--port': .*"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    said: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["modal-gateway"])
    code = run_here([word.strip("'") for word in typed.split()])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: {said}\n", err), err


def test_a_process_ends_with_that_line_and_code(folder: Path) -> None:
    done = run("serve", "--config", "typo.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: typo\.yaml: models\.m\.upstrem: unknown key; .+\n", done.stderr)


# --- help ---


def test_the_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["--version"]) == 0
    assert capsys.readouterr() == (f"modal-gateway {gateway.__version__}\n", "")


def test_without_arguments_it_lists_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here([]) == 0
    shown = capsys.readouterr().out
    for command in ("serve", "demo", "check", "render", "keys", "config"):
        assert re.search(rf"^  {command} ", shown, re.MULTILINE)


@pytest.mark.parametrize("command", ["serve", "demo", "check", "render", "keys create", "config schema"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here([*command.split(), "--help"]) == 0
    assert f"Usage: modal-gateway {command}" in capsys.readouterr().out


# --- keys create ---


def test_a_new_key_is_alone_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(2):
        assert run_here(["keys", "create", "--name", "me"]) == 0
        out, err = capsys.readouterr()
        assert re.fullmatch(r"sk-[\w-]{43}\n", out)
        digest = hashlib.sha256(out.strip().encode()).hexdigest()
        assert f'  - {{name: me, sha256: "{digest}"}}\n' in err
        assert out.strip() not in err
        keys.add(out)
    assert len(keys) == 2


@pytest.mark.parametrize("name", ["me", "no", "null", "Team A", "a: b", 'say "hi"', "小王", "1", "#x", "{}"])
def test_the_line_for_the_file_is_yaml(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run_here(["keys", "create", "--name", name]) == 0
    out, err = capsys.readouterr()
    [line] = (line for line in err.splitlines() if line.startswith("  - "))
    data = yaml.safe_load(f"auth:\n  keys:\n{line}\n") | {"models": {"m": MODEL}}
    Path("made.yaml").write_text(json.dumps(data))
    [key] = load(Path("made.yaml")).auth.keys
    assert key.name == name
    assert key.digest == hashlib.sha256(out.strip().encode()).digest()


def test_a_new_key_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["keys", "create", "--name", "小王", "--json"]) == 0
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert made["name"] == "小王"
    assert made["sha256"] == hashlib.sha256(made["key"].encode()).hexdigest()
    assert err == ""


# --- config schema ---


def test_the_schema_knows_every_key_of_the_shipped_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["config", "schema"]) == 0
    document = json.loads(capsys.readouterr().out)
    for name in ("gateway.yaml", "compose.yaml"):
        known(yaml.safe_load((ROOT / "config" / name).read_text()), document, document)
    model = document["$defs"]["Model"]
    assert {"required": ["upstream"]} in model["oneOf"]
    kinds = {name for name, kind in document["$defs"].items() if "kind" in kind.get("required", ())}
    assert kinds and "PromptConfig" not in kinds  # without a kind, it is a prompt's


def known(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Every key of ``value`` has a place in the schema."""
    options = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    if "$ref" in schema:
        options.append(document["$defs"][schema["$ref"].rpartition("/")[2]])
    if isinstance(value, dict):
        for key, item in value.items():
            places = [found for each in (schema, *options) for found in within(key, each, document)]
            assert places, key
            for place in places[:1]:
                known(item, place, document)
    if isinstance(value, list) and "items" in schema:
        for item in value:
            known(item, schema["items"], document)


def within(key: str, schema: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    if key in schema.get("properties", {}):
        yield schema["properties"][key]
    elif isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]


# --- check ---


@pytest.fixture
def listener() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(URL, what was sent there over the one connection that was made)."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(BOUND)
        got: list[bytes] = []

        def take() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.settimeout(BOUND)
                try:
                    got.append(connection.recv(1000))
                except ConnectionResetError:
                    got.append(b"")

        thread = threading.Thread(target=take)
        thread.start()

        def sent() -> bytes:
            thread.join(BOUND)
            return got[0]

        yield f"http://127.0.0.1:{sock.getsockname()[1]}", sent
        thread.join(BOUND)


def test_check_connects_and_sends_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], listener: tuple[str, Callable[[], bytes]]
) -> None:
    url, sent = listener
    models = {"mine": {"upstream": {"url": url}, "template": "chatglm2"}}
    Path("c.yaml").write_text(json.dumps(OPEN | {"models": models}))
    assert run_here(["check", "--config", "c.yaml"]) == 0
    assert sent() == b""
    out, err = capsys.readouterr()
    host = url.removeprefix("http://")
    assert re.search(rf"^mine +chatglm2 +prompt {host} +yes$", out, re.MULTILINE)
    assert out.endswith("all is well\n")
    assert err == ""


def test_check_and_serve_agree_on_who_may_call(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("stored.yaml").write_text(json.dumps({"models": {"m": {"upstream": {"kind": "demo"}}}}))
    source = Source(path="stored.yaml")
    served = Served(source, "127.0.0.1", loopback=True, insecure=False, workers=1)
    settings, stored = source.settings(), ("--config", "stored.yaml")
    with pytest.raises(CommandError, match="no key"):
        served.guard(settings)
    for name in ("ann", "ben"):
        assert run_here(["keys", "create", "--name", name, *stored]) == 0
    served.guard(settings)
    assert re.search(r"^  keys +2 in the store$", banner(settings, "127.0.0.1", served, "http://x", []), re.M)
    capsys.readouterr()
    assert run_here(["check", *stored]) == 0
    assert capsys.readouterr().out.startswith("keys: 2 in the store\n")
    for name in ("ann", "ben"):
        assert run_here(["keys", "revoke", name, *stored]) == 0
    capsys.readouterr()
    assert run_here(["check", *stored]) == 1
    assert re.match(r"keys: none\n(.*\n)+.*auth.keys has no key", capsys.readouterr().out)
    with pytest.raises(CommandError, match="no key"):
        served.guard(settings)


def test_a_gateway_without_a_key_serves_where_its_admin_can_make_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a container whose last key was revoked would never come up again."""

    def serves(**top: object) -> bool:
        Path("a.yaml").write_text(json.dumps({"models": {"m": {"upstream": {"kind": "demo"}}}, **top}))
        source = Source(path="a.yaml")
        try:
            Served(source, "127.0.0.1", loopback=True, insecure=False, workers=1).guard(source.settings())
        except CommandError:
            return False
        return True

    admin = {"key": "an admin key of some length"}
    assert serves(admin=admin)
    assert run_here(["check", "--config", "a.yaml"]) == 0
    assert capsys.readouterr().out.startswith("keys: none\n")
    assert not serves()
    assert not serves(admin=admin, store={"url": None})


def test_check_says_that_the_store_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.db").write_text("this is no database, and nothing that could be made one\n" * 100)
    Path("s.yaml").write_text(json.dumps({"models": {"m": MODEL}, "store": {"url": "sqlite:///broken.db"}}))
    assert run_here(["check", "--config", "s.yaml"]) == 1
    assert capsys.readouterr().out.startswith("keys: perhaps some in the store\n")


def test_check_notes_an_admin_key_that_can_be_guessed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, said in (("hunter2", True), ("x" * 16, False), ("", False)):
        Path("a.yaml").write_text(json.dumps(OPEN | {"models": {"m": MODEL}, "admin": {"key": key}}))
        run_here(["check", "--config", "a.yaml"])
        assert ("admin.key has fewer than 16 characters" in capsys.readouterr().out) is said


def test_check_looks_at_every_model_whatever_is_wrong_with_another(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {
        "a": MODEL | {"template": "nope"},
        "b": MODEL,
        "c": {"upstream": {"kind": "demo"}},
        "d": {"upstream": {"kind": "openai", "url": URL + "/v1"}, "aliases": ["e"]},
    }
    Path("c.yaml").write_text(json.dumps({"models": models}))
    assert run_here(["check", "--config", "c.yaml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["auth"] == {"mode": "keys", "keys": [], "stored": 0}
    assert not Path("gateway.db").exists()  # who only looks makes none
    wrong = {model["name"]: model["upstreams"][0]["wrong"] for model in found["models"]}
    assert wrong["a"].startswith("models.a.template: ")
    assert wrong["b"] == "No connection to models.b.upstream.url."
    assert wrong["c"] is None
    assert wrong["d"] == "No connection to models.d.upstream.url."
    assert [model["template"] for model in found["models"]] == ["nope", "plain", "chatml", None]
    assert found["models"][3]["aliases"] == ["e"]
    assert len(found["problems"]) == 4 and "keys create" in found["problems"][0]
    assert run_here(["check", "--config", "c.yaml"]) == 1
    shown = capsys.readouterr().out
    assert all(f"wrong: {problem}\n" in shown for problem in found["problems"])


def test_check_says_where_nobody_said_what_stands_for_an_image(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = {"kind": "demo"}
    models = {
        "blind": {"upstream": upstream, "template": "chatglm2", "images": True},
        "told": {"upstream": upstream, "template": "chatglm2", "images": True, "image_token": "<image>"},
        "knows": {"upstream": upstream, "template": "llava", "images": True},
    }
    Path("c.yaml").write_text(json.dumps(OPEN | {"models": models}))
    assert run_here(["check", "--config", "c.yaml", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"] == [
        "models.blind.images: template chatglm2 has no token for images; set models.blind.image_token"
    ]


# --- render ---


def test_render_prints_what_would_be_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {"upstream": {"url": URL}, "template": "chatml", "stop": ["</s>"]}
    Path("r.yaml").write_text(json.dumps(OPEN | {"models": {"m": model}}))
    asked = FILES["request.json"] | {"stop": ["END"], "max_tokens": 5}
    Path("r.json").write_text(json.dumps(asked))
    assert run_here(["render", "r.json", "--config", "r.yaml", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["prompt"] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert {"</s>", "END"} <= set(made["stop"])
    assert made["call"]["prompt"] == made["prompt"] and made["call"]["max_tokens"] == 5
    assert run_here(["render", "r.json", "--config", "r.yaml"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"prompt:\n{made['prompt']}\nstop:\n")
    assert '"END"\n' in shown and '"max_tokens": 5' in shown


def test_render_reads_standard_input_and_needs_no_key(folder: Path) -> None:
    request = json.dumps({"messages": [{"role": "user", "content": "你好"}]})
    done = run("render", "-", "--config", "keyless.yaml", cwd=folder, input=request)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("prompt:\n你好\n")


def test_render_for_a_server_that_renders_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"m": MODEL, "n": {"upstream": {"kind": "openai", "url": URL}}}
    Path("r.yaml").write_text(json.dumps(OPEN | {"models": models}))
    assert run_here(["render", "request.json", "--model", "n", "--config", "r.yaml", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["prompt"] is None
    assert made["call"]["messages"] == FILES["request.json"]["messages"]


INSTALLED = Path(sys.executable).with_name("modal-gateway")


@pytest.mark.skipif(not INSTALLED.exists(), reason="the command is not installed beside this Python")
def test_the_installed_command_is_the_same(folder: Path) -> None:
    done = subprocess.run([INSTALLED, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"modal-gateway {gateway.__version__}\n"
