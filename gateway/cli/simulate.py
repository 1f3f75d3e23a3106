"""``simulate``: Modal's web edge on this machine, in front of an app.

Rule: what happens is written line by line as it happens, and never holds what a request says. Without an app
of one's own a container with the demo engine is started as a process, and ends with this one.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gateway.cli.address import bind
from gateway.cli.demo import container_url, demo_container
from gateway.cli.output import beside
from gateway.cli.show import CommandError, bold, dim, program
from gateway.http.server import Running
from gateway.simulate.call import App, app_at
from gateway.simulate.edge import STATE_PATH, Edge
from gateway.simulate.journal import Journal, Line
from gateway.simulate.options import Boot, Mode, Options, boot
from gateway.simulate.server import configured

HOST = "127.0.0.1"  # it guards nothing, so nobody else may reach it
NAMES = {Mode.web_function: "Web Function", Mode.server: "Server"}


@dataclass(slots=True, frozen=True)
class Place:
    """Where it listens, what is behind it, and how it tells. Without ``app`` there is the demo engine."""

    port: int
    app: str | None
    json: bool


def simulate(place: Place, options: Options) -> int:
    """Serve until told to stop; the exit code. Raises ``CommandError``."""
    if place.app is not None:
        _app(place.app)  # what is wrong with it is said before anything starts
    with bind(HOST, place.port, "choose another with --port") as sock:
        if place.app is not None:
            _serve(place.app, sock, place, options).run()
            return 0
        with demo_container() as container:
            running = _serve(container_url(container), sock, place, options)
            with _watched(container, running) as trouble:
                running.run()
        if trouble:
            raise CommandError(trouble[0])
    return 0


def _serve(app: str, sock: socket.socket, place: Place, options: Options) -> Running:
    url = f"http://{HOST}:{sock.getsockname()[1]}"
    edge = Edge(_app(app), options, Journal(_lines(place.json), time.monotonic))

    def ready() -> None:
        beside(lambda: print(_ready(url, app) if place.json else _introduction(url, app, options)))

    return Running(configured(edge), sock, ready)


def boot_of(text: str) -> Boot:
    """Raises ``CommandError``."""
    try:
        return boot(text)
    except ValueError:
        raise CommandError(f"--boot takes seconds, 20 or 15-30, not {text!r}") from None


def function_timeout_of(seconds: float) -> float:
    """Raises ``CommandError``. Modal's least is 1; less is for tests."""
    if not seconds > 0:
        raise CommandError("--function-timeout must be more than 0: with 0 no request would ever be answered")
    return seconds


def with_token(options: Options, token: str | None) -> Options:
    """``KEY:SECRET``, or None to ask for none. Raises ``CommandError``."""
    if token is None:
        return options
    key, _, secret = token.partition(":")
    if not key or not secret:
        raise CommandError("--require-auth takes KEY:SECRET")
    return replace(options, credentials=(key, secret))


def _app(url: str) -> App:
    try:
        return app_at(url)
    except ValueError:
        raise CommandError(f"--app takes an http or https URL without a query, not {url!r}") from None


@contextmanager
def _watched(container: subprocess.Popen[str], running: Running) -> Iterator[list[str]]:
    """While the block runs, the container's end stops the server; gives why, if it comes to that."""
    trouble: list[str] = []

    def watch() -> None:
        container.wait()
        if not running.stopping:
            trouble.append("the app's process ended by itself; what it said is above")
            running.stop()

    threading.Thread(target=watch, daemon=True).start()
    yield trouble


def _lines(as_json: bool) -> Callable[[Line], None]:
    def write(line: Line) -> None:
        beside(lambda: print(json.dumps(line.as_json()) if as_json else line))

    return write


def _ready(url: str, behind: str) -> str:
    return json.dumps({"event": "ready", "url": url, "app": behind, "state": url + STATE_PATH})


def _introduction(url: str, behind: str, options: Options) -> str:
    token = ""
    if options.credentials is not None:
        token = ' -H "Modal-Key: $MODAL_KEY" -H "Modal-Secret: $MODAL_SECRET"'
    curl = f"curl -L {url}{token} -H 'content-type: application/json' -d '{{\"prompt\": \"hello\"}}'"
    boots = f"a boot takes {options.boot} s, an idle one goes after {options.idle:g} s"
    entry = f"upstream: {{url: {json.dumps(url)}, inputs_per_container: {options.max_inputs}, "
    entry += f"max_containers: {options.max_containers}"
    entry += ', modal_key: "${MODAL_KEY}", modal_secret: "${MODAL_SECRET}"}' if token else "}"
    rows = [
        ("app", behind),
        ("containers", f"none yet, at most {options.max_containers} with {options.max_inputs} inputs each;"),
        ("", boots),
        ("try", curl),
        ("gateway", f"{program()} serve --url {url}"),
        ("or", entry),
        ("state", url + STATE_PATH),
    ]
    head = f"a simulated {NAMES[options.mode]} of Modal's at {bold(url)}"
    lines = [f"  {label:<10}  {value}" for label, value in rows]
    return "\n".join([head, *lines, dim("Ctrl-C ends it.")])
