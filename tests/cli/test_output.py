"""Standard output that is full, closed or read by nobody, and what a command does then."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from gateway.keys.key_store import KeyStore
from tests.cli.process import BOUND, COMMAND, environment, run, running

FULL = Path("/dev/full")
CONFIG = "auth: {keys: [{name: ci, key: abcdefghijklmnop}]}\nmodels: {m: {upstream: {kind: demo}}}\n"

needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    return tmp_path


def into(stdout: int | None, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with this file as standard output; None closes it, and standard input too."""
    closing = () if stdout is not None else ("-c", 'exec "$@" <&- >&-', "sh")
    return subprocess.run(
        [*(("sh", *closing) if closing else ()), *COMMAND, *arguments],
        cwd=folder,
        env=environment({"MODAL_GATEWAY_CONFIG": "gateway.yaml", "PYTHONUNBUFFERED": ""}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=BOUND,
    )


@contextmanager
def gone() -> Iterator[dict[str, int | None]]:
    """Every sort of standard output that takes nothing, but for one whose reader has left."""
    number = os.open(FULL, os.O_WRONLY)
    try:
        yield {"it is full": number, "it is closed": None}
    finally:
        os.close(number)


@contextmanager
def left() -> Iterator[int]:
    """A pipe that nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        yield writes
    finally:
        os.close(writes)


@needs_full
@pytest.mark.parametrize(
    ("command", "why"),
    [("keys list", "it is full"), ("keys list --json", "it is closed"), ("--help", "it is full")],
)
def test_a_command_whose_answer_is_lost_says_so_in_one_line(folder: Path, command: str, why: str) -> None:
    with gone() as outputs:
        done = into(outputs[why], folder, *command.split())
    assert done.stderr == f"error: standard output takes nothing more: {why}\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["config schema", "--version"])
def test_a_command_whose_reader_has_left_ends_without_a_word(folder: Path, command: str) -> None:
    with left() as output:
        done = into(output, folder, *command.split())
    assert (done.returncode, done.stderr) == (1, "")


def test_a_request_cannot_be_read_from_what_is_closed(folder: Path) -> None:
    done = into(None, folder, "render", "-")
    assert (done.returncode, done.stderr) == (2, "error: cannot read -: Bad file descriptor\n")


def test_a_key_that_nobody_saw_is_revoked(folder: Path) -> None:
    with left() as unread:
        for output, why, options in (
            (unread, "nobody reads it any more", ()),
            (None, "it is closed", ("--json",)),
        ):
            done = into(output, folder, "keys", "create", "--name", "ann", *options)
            lost = f"standard output takes nothing more: {why}, so nobody saw the key ann"
            assert (done.returncode, done.stderr) == (2, f"error: {lost}: it is revoked\n")
    with closing(KeyStore(SecretStr("sqlite:///gateway.db"), folder)) as key_store:
        assert [key.revoked is None for key in key_store.every()] == [False, False]


@needs_full
def test_a_new_secret_that_nobody_saw_is_told_of(folder: Path) -> None:
    assert run("keys", "create", "--name", "ann", "--config", "gateway.yaml", cwd=folder).returncode == 0
    with gone() as outputs:
        done = into(outputs["it is full"], folder, "keys", "rotate", "ann")
    assert done.returncode == 2 and done.stderr.endswith("the old one has ended: rotate it again\n")


@contextmanager
def unseen(stdout: int | None, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that serves without telling anybody."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment({"PYTHONUNBUFFERED": ""}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@needs_full
@pytest.mark.parametrize("command", ["serve --url http://127.0.0.1:9", "demo"])
def test_what_serves_goes_on_without_anybody_to_tell(tmp_path: Path, command: str) -> None:
    with (
        gone() as outputs,
        unseen(outputs["it is full"], tmp_path, *command.split(), "--port", "0") as unheard,
    ):
        assert unheard.stderr is not None
        assert unheard.stderr.readline() == "warning: standard output takes nothing more: it is full\n"
        unheard.send_signal(signal.SIGTERM)
        _, err = unheard.communicate(timeout=BOUND)
        assert (unheard.returncode, err) == (0, "")


def test_a_demo_whose_reader_has_left_still_answers(tmp_path: Path) -> None:
    with running("demo", "--port", "0", cwd=tmp_path, until="a demo at") as demo:
        root = demo.shown.split()[-1]
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        answer = httpx.get(f"{root}/v1/models", timeout=BOUND)
        assert answer.status_code == 200
        demo.process.send_signal(signal.SIGTERM)
        assert demo.process.wait(BOUND) == 0
        assert demo.process.stderr is not None
        assert all('"event":"request"' in line for line in demo.process.stderr)  # the demo's own question
