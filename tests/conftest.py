"""What every test may rely on: one event loop, one environment, golden files, how hard to search.

Rule: nothing here knows the gateway; fixtures that start servers live beside the tests that need them.
"""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.services import database_url, postgres_server, postgres_url, redis_server  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

# `fast` draws the same examples every time, so that a change is judged by the change alone. `thorough`
# searches: HYPOTHESIS_PROFILE=thorough make test ARGS="-k stops". No limit depends on the machine's speed.
settings.register_profile(
    "fast",
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# Signals that end a program, or have it read its configuration, as far as this system has them.
HEARD = [getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGHUP") if hasattr(signal, name)]

# Variables of the person at the keyboard that would change what clients or the gateway do.
FOREIGN = ("OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "MODAL_", "GATEWAY_", "OTEL_", "UVICORN_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="rewrite the golden files instead of comparing")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("--golden"):
        config.option.numprocesses = 0  # a file is rewritten by one process


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--golden"):
        items[:] = [item for item in items if "golden" in getattr(item, "fixturenames", ())]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop the gateway runs on; anyio would also try trio where that is installed."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def plain_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No proxy, key or tracing of the person who runs the tests reaches a test or its subprocesses.

    Nor do the certificates of the world: no test calls it, and each HTTP client would load them all.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("PYTHONUTF8", "1")
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # a hundred processes load the same modules
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("no-certificates")))
        patch.delenv("SSL_CERT_FILE", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_signals() -> Iterator[None]:
    """Whoever is started here hears signals, though we may not: in the background, or by nohup.

    What is ignored is passed on to every process below; what has a handler is not.
    """
    ignored = [number for number in HEARD if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class Golden:
    """Files that hold what the code is expected to write, to the byte; `make golden` rewrites them."""

    rewrite: bool

    def check(self, path: str | Path, text: str | bytes) -> None:
        """Compare `text` with the file `path` (absolute, or below tests/golden); with --golden, write it."""
        file = GOLDEN / path
        found = text if isinstance(text, bytes) else text.encode()
        if self.rewrite:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(found)
            return
        assert file.exists(), f"{file.relative_to(ROOT)} does not exist: `make golden` writes it"
        wanted = file.read_bytes()
        differs = f"{file.relative_to(ROOT)} differs; if the change is meant: make golden"
        if isinstance(text, bytes):
            assert found == wanted, differs
        else:
            assert text == wanted.decode(), differs


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden.check("chunks/tools.txt", text)`."""
    return Golden(rewrite=request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def client_python() -> Callable[[str], Path]:
    """`client_python("langchain_2023")`: the interpreter of a client that cannot share our environment.

    The environment is the one made from the lock in tests/clients/NAME; where it was not made the test skips.
    """

    def find(name: str) -> Path:
        python = ROOT / ".venvs" / name / "bin" / "python"
        if not python.exists():
            pytest.skip(f"no environment .venvs/{name}: `make test-clients` makes it")
        return python

    return find
