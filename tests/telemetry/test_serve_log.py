"""What `serve` writes on standard error, as a process."""

import json
import re
from pathlib import Path
from typing import Any

from tests.cli.test_serve import CHAT, Endpoint, endpoint, said, serving  # noqa: F401


def configured(folder: Path, url: str, **server: Any) -> None:
    data = {
        "server": server,
        "auth": {"keys": [{"name": "anna", "key": "sk-anna-secret"}]},
        "store": {"url": None},
        "models": {"my-model": {"upstream": {"url": url}, "template": "plain"}},
    }
    (folder / "gateway.yaml").write_text(json.dumps(data))


def served(folder: Path, endpoint: Endpoint, asked: int, **environ: str) -> str:  # noqa: F811
    """Standard error of a gateway that was asked so often, and once with a wrong key."""
    with serving(folder, "--config", "gateway.yaml", **environ) as gateway:
        for _ in range(asked):
            assert said(gateway, authorization="Bearer sk-anna-secret") == "hello world"
        with gateway.client(authorization="Bearer sk-wrong-secret") as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 401
        code, _, err = gateway.stop()
    assert code == 0
    assert "secret" not in err
    return err


def test_off_a_terminal_each_line_is_json_and_none_is_lost(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    configured(tmp_path, endpoint.url)
    lines = [json.loads(line) for line in served(tmp_path, endpoint, 5).splitlines()]
    assert [line["status"] for line in lines] == [200] * 5 + [401]
    assert {line["key"] for line in lines} == {"anna", "-"}
    assert len({line["id"] for line in lines}) == 6
    assert "bot" not in repr(lines) and "hello" not in repr(lines)


def test_what_else_is_logged_is_json_too(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    configured(tmp_path, "http://127.0.0.1:9")
    with serving(tmp_path, "--config", "gateway.yaml") as gateway:
        gateway.process.send_signal(1)  # SIGHUP
        assert gateway.process.stderr is not None
        line = json.loads(gateway.process.stderr.readline())
        assert (line["event"], line["message"]) == ("log", "the configuration was reloaded")
        with gateway.client(authorization="Bearer sk-anna-secret") as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 503
        failed = json.loads(gateway.process.stderr.readline())
        assert (failed["level"], failed["code"]) == ("warning", "upstream_unavailable")


def test_text_is_text(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    configured(tmp_path, endpoint.url, log="text")
    lines = served(tmp_path, endpoint, 1).splitlines()
    assert re.match(r"\d\d:\d\d:\d\d  200 .+ my-model +anna +req_\w{24}", lines[0])
    assert lines[1].endswith("code=invalid_api_key")


def test_off_leaves_failures(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    configured(tmp_path, endpoint.url, log="off")
    assert served(tmp_path, endpoint, 1) == ""


def test_the_wire_is_shown_if_the_environment_says_so(tmp_path: Path, endpoint: Endpoint) -> None:  # noqa: F811
    configured(tmp_path, endpoint.url, log="off")
    lines = served(tmp_path, endpoint, 1, GATEWAY_SHOW_WIRE="1").splitlines()
    shown = [line.partition(" my-model ")[2] for line in lines]
    assert shown[0] == "| Identify yourself, bot!"
    assert '< {"prompt": "hello world"}' in shown
