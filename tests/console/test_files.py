"""The console's page: its own files, with headers that let nothing else in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.console.files import HEADERS, KINDS, LONGEST, STATIC, found
from tests.keys.gate import gate

FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


def test_every_file_there_is_of_a_kind_that_is_served() -> None:
    assert "index.html" in FILES
    assert [name for name in FILES if found(name) is None] == []


async def test_each_file_comes_with_the_policy_and_its_type_and_is_asked_for_once(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        for path in ("/", *(f"/console/{name}" for name in FILES)):
            answer = await here.client.get(path)
            file = STATIC / (path.removeprefix("/console/") if path != "/" else "index.html")
            assert (answer.status_code, answer.content) == (200, file.read_bytes()), path
            assert answer.headers["content-type"] == KINDS[file.suffix]
            held(answer)
            head = await here.client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(answer.content))
            tag = answer.headers["etag"]
            for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                again = await here.client.get(path, headers={"if-none-match": known})
                assert (again.status_code, again.content) == (304, b"")
                assert again.headers["etag"] == tag
                held(again)
            assert (await here.client.get(path, headers={"if-none-match": '"other"'})).status_code == 200


def held(answer: httpx.Response) -> None:
    assert {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and policy.startswith("default-src 'none'; ")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nothing.js",
        "../files.py",
        "../static/index.html",
        "..",
        ".",
        "vendor",
        "vendor/",
        "vendor//preact.js",
        "vendor/../index.html",
        "/index.html",
        "//index.html",
        "..\\files.py",
        "index.html\0",
        "index.html\n",
        ".hidden.js",
        "x/" * LONGEST + "x.js",
        "x" * 5000 + ".js",
    ],
)
def test_no_other_name_leads_to_a_file(name: str) -> None:
    assert found(name) is None


async def test_no_path_leads_out(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        for path in ("/console/%2e%2e/files.py", "/console/..%2ffiles.py", "/console//etc/passwd"):
            answer = await here.client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert (await here.client.post("/")).status_code == 405


async def test_the_list_of_addresses_leaves_the_console_out(tmp_path: Path) -> None:
    async with gate(tmp_path) as here:
        paths = (await here.client.get("/openapi.json")).json()["paths"]
        assert [path for path in paths if path == "/" or path.startswith("/console")] == []
        assert "/admin/requests" in paths
