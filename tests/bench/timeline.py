"""Records twenty clients on one cold start and draws them: ``python -m tests.bench.timeline [FILE.svg]``.

Rule: the picture is drawn from what was recorded and from nothing else. The gateway and the simulated edge
are real servers on loopback; the container's answers are paced so that they can be seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gateway.app import build_app
from gateway.settings import settings_from
from gateway.simulate.options import Boot, Mode, Options
from tests.serve.house import Visit, container, listening
from tests.simulate.simulated import Simulated, simulated

CLIENTS = 20
EVERY = 0.5  # seconds between two clients
BOOT = 20.0  # seconds
PIECES, PACE = 15, 0.1  # of an answer; seconds between two
TARGET = Path("docs/cold-start.svg")


@dataclass
class Seen:
    """One client's times, in seconds from the start of the run."""

    streams: bool
    asked: float = 0.0
    signs: list[float] = field(default_factory=list)  # opening, pings, white space
    first: float = 0.0  # text
    ended: float = 0.0


async def answer(visit: Visit) -> None:
    if not visit.json.get("stream"):
        await asyncio.sleep(PIECES * PACE)
        await visit.answer({"prompt": "word " * PIECES})
        return
    await visit.start_stream()
    for _ in range(PIECES):
        await visit.event({"prompt": "word "})
        await asyncio.sleep(PACE)
    await visit.event({"prompt": "", "finish_reason": "stop"})
    await visit.event("[DONE]")
    await visit.end_stream()


async def client(http: httpx.AsyncClient, number: int, began: float) -> Seen:
    loop = asyncio.get_running_loop()
    seen = Seen(number % 2 == 0)
    await asyncio.sleep(number * EVERY)
    seen.asked = loop.time() - began
    said = [{"role": "user", "content": f"client {number}"}]
    ask = {"model": "m", "stream": seen.streams, "messages": said}
    async with http.stream("POST", "/v1/chat/completions", json=ask) as response:
        assert response.status_code == 200
        async for part in response.aiter_raw():
            now = loop.time() - began
            if b"word" not in part and not seen.first:
                seen.signs.append(now)
            seen.first = seen.first or (now if b"word" in part else 0.0)
    seen.ended = loop.time() - began
    return seen


async def record() -> tuple[list[Seen], list[tuple[float, str]]]:
    """The clients, and when the edge refused, booted and was ready."""
    options = Options(mode=Mode.server, boot=Boot(BOOT, BOOT))
    clock = asyncio.get_running_loop().time
    async with container(answer) as app:
        made = clock()
        async with simulated(f"http://127.0.0.1:{app.port}", options) as edge:
            seen, began = await crowd(edge)
        assert edge.counts.boots == 1 and edge.counts.generations == CLIENTS
        return seen, [(made + line.at - began, line.event) for line in edge.lines]


async def crowd(edge: Simulated) -> tuple[list[Seen], float]:
    """All clients through a gateway, and when the first one came by the loop's clock."""
    model = {"upstream": {"url": edge.url}, "template": "plain"}
    settings = settings_from({"auth": {"mode": "none"}, "models": {"m": model}}, {})
    async with listening(build_app(settings)) as port:
        limits = httpx.Limits(max_connections=None)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=None) as http:
            began = asyncio.get_running_loop().time()
            return await asyncio.gather(*(client(http, n, began) for n in range(CLIENTS))), began


WIDTH, LEFT, RIGHT, ROW, TOP = 900, 90, 20, 18, 44
STYLE = """
text{font:12px system-ui,sans-serif;fill:#57606a}
.axis{stroke:#8c959f66}.wait{fill:#afb8c1}.boot{fill:#e8a33d}.run{fill:#2da44e}.sign{fill:#0969da}.no{fill:#cf222e}
"""


def picture(seen: list[Seen], edge: list[tuple[float, str]]) -> str:
    """An SVG without anything from outside; colours that stand out on light and dark pages."""
    end = max(one.ended for one in seen) + 0.5
    height = TOP + ROW * (len(seen) + 2) + 50

    def x(seconds: float) -> float:
        return round(LEFT + seconds / end * (WIDTH - LEFT - RIGHT), 1)

    def bar(row: int, kind: str, start: float, stop: float) -> str:
        y, width = TOP + row * ROW, max(round(x(stop) - x(start), 1), 1)
        return f'<rect class="{kind}" x="{x(start)}" y="{y}" width="{width}" height="{ROW - 6}" rx="2"/>'

    def dot(row: int, kind: str, at: float) -> str:
        return f'<circle class="{kind}" cx="{x(at)}" cy="{TOP + row * ROW + (ROW - 6) / 2}" r="3"/>'

    def label(row: int, text: str) -> str:
        return f'<text x="{LEFT - 8}" y="{TOP + row * ROW + 10}" text-anchor="end">{text}</text>'

    booted = next(at for at, what in edge if what == "container booting")
    ready = next(at for at, what in edge if what == "container ready")
    parts = [label(0, "container"), bar(0, "boot", booted, ready), bar(0, "run", ready, end)]
    parts += [dot(0, "no", at) for at, what in edge if what == "request refused"]
    for row, one in enumerate(seen, 2):
        parts.append(label(row, "stream" if one.streams else "whole"))
        parts += [bar(row, "wait", one.asked, one.first), bar(row, "run", one.first, one.ended)]
        parts += [dot(row, "sign", at) for at in one.signs]
    bottom = TOP + ROW * (len(seen) + 2)
    for tick in range(0, int(end) + 1, 5):
        at = x(tick)
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{tick} s</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{len(seen)} clients on one cold start of {BOOT:g} s</title><style>{STYLE}</style>",
        f'<text x="{LEFT}" y="18">orange: the container boots. red: its edge refuses a request. '
        "grey: a client waits. blue: it gets a sign of life. green: it runs</text>",
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    seen, edge = asyncio.run(record())
    target.write_text(picture(seen, edge))
    refused = sum(what == "request refused" for _, what in edge)
    last = max(one.ended for one in seen)
    print(json.dumps({"clients": len(seen), "refused": refused, "seconds": round(last, 1)}))


if __name__ == "__main__":
    main()
