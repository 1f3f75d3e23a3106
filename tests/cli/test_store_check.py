"""`check` finds what `serve` would refuse of the store, and makes nothing while it looks."""

import json
from pathlib import Path

import pytest

from gateway.cli.commands import run

STORES = {
    "a folder that is not there": ({"url": "sqlite:///away/s.db"}, "store.url: "),
    "no folder": ({"url": "sqlite:///file/s.db"}, "store.url: "),
    "a spool below a file": ({"url": "sqlite:///s.db", "spool": "file/spool"}, "store.spool: "),
}


def configuration(folder: Path, store: dict[str, str], mode: str = "none") -> str:
    (folder / "file").write_text("")
    keys = {"mode": "none"} if mode == "none" else {"keys": [{"name": "me", "key": "sk-0123456789abcdef"}]}
    models = {"m": {"upstream": {"kind": "demo"}}}
    (folder / "gateway.yaml").write_text(json.dumps({"auth": keys, "store": store, "models": models}))
    return str(folder / "gateway.yaml")


@pytest.mark.parametrize("mode", ["none", "keys"])
@pytest.mark.parametrize("name", STORES)
def test_check_finds_what_serve_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, mode: str
) -> None:
    store, told = STORES[name]
    path = configuration(tmp_path, store, mode)
    assert run(["check", "--json", "--config", path]) == 1
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem.startswith(told)
    assert run(["serve", "--port", "0", "--config", path]) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_check_makes_neither_database_nor_spool(tmp_path: Path) -> None:
    path = configuration(tmp_path, {"url": "sqlite:///s.db", "spool": "deep/down/spool"})
    assert run(["check", "--config", path]) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "gateway.yaml"]
