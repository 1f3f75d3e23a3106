"""The bench itself works: its clients see a lost, doubled or cut text, and its servers answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.bench.figures import FIGURES, lines, markdown, table
from tests.bench.load import Question, Stream, Tally, Window, answers
from tests.bench.measure import QUICK, Findings, Look, look
from tests.bench.process import Server
from tests.bench.subjects import BASELINE, GATEWAY, UPSTREAM, mock_upstream, question, subject
from tests.bench.upstream import PACES, frames, text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bench reads CPU and memory from /proc")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    with mock_upstream() as server:
        yield server


@pytest.fixture(scope="module", params=[UPSTREAM, BASELINE, GATEWAY])
def server(request: pytest.FixtureRequest, upstream: Server) -> Iterator[Server]:
    if request.param == UPSTREAM:
        yield upstream
        return
    with subject(request.param, upstream.port) as started:
        yield started


def looked(server: Server, asked: Question, connections: int) -> Look:
    """A short look; a longer one where a busy machine had no time to answer within it."""
    for seconds in (0.05, 0.5, 5.0):
        seen = look(server, asked, connections, warm=0, seconds=seconds)
        if seen.tally.characters or seen.tally.latencies:
            break
    return seen


def test_whole_answers_arrive_as_the_upstream_gave_them(server: Server) -> None:
    seen = looked(server, question(server), connections=2)
    assert not seen.tally.failures
    assert seen.tally.answers == len(seen.tally.latencies) > 0
    assert seen.cpu > 0


@pytest.mark.parametrize(("pace", "events"), [("short", 100), ("burst", 300), ("paced", 10)])
def test_streams_arrive_to_the_last_character(server: Server, pace: str, events: int) -> None:
    seen = looked(server, question(server, pace, events, stop=True), connections=3)
    assert not seen.tally.failures
    assert seen.tally.intact >= 3
    assert seen.per_event(events) > 0


async def test_a_stream_of_another_length_is_a_failure(upstream: Server) -> None:
    asked = question(upstream, "short", 50)
    wrong = Question(asked.port, asked.request, text(51), streamed=True, key=asked.key)
    tally = await answers(wrong, 1, Window(0, 0))
    assert tally.intact == 0
    assert len(tally.failures) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda chunks: [*chunks[:3], *chunks[4:]],
        lambda chunks: [*chunks[:3], *chunks[2:]],
        lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
        lambda chunks: chunks[:-1],
        lambda chunks: [*chunks, b'data: {"error": {}}\n\n'],
    ],
    ids=["lost", "doubled", "swapped", "cut", "followed by an error"],
)
async def test_a_spoilt_stream_is_a_failure(spoil: object) -> None:
    chunks = [b'data: {"prompt":"%s"}\n\n' % text(8)[7 * i : 7 * i + 7] for i in range(8)]
    chunks.append(b"data: [DONE]\n\n")
    asked = Question(0, b"", text(8), streamed=True, key="prompt")
    for sent, right in ((chunks, True), (spoil(chunks), False)):  # type: ignore[operator]
        stream = Stream(asked, Tally())
        for chunk in sent:
            stream.body(chunk)
        stream.end(200)
        assert await stream.over is right


async def test_how_a_stream_is_cut_does_not_matter() -> None:
    whole = b'data: {"choices":[{"delta":{"content":"w00000 "}}]}\n\ndata: [DONE]\n\n'
    for at in range(len(whole)):
        stream = Stream(Question(0, b"", text(1), streamed=True), Tally())
        stream.body(whole[:at])
        stream.body(whole[at:])
        stream.end(200)
        assert await stream.over, at


@pytest.mark.parametrize("pace", sorted(PACES))
def test_a_stream_is_written_in_bursts(pace: str) -> None:
    burst = PACES[pace].burst
    assert len(frames(burst, 3 * burst)) == 3


def test_every_figure_has_its_line() -> None:
    findings = Findings()
    for figure in FIGURES:
        for name in (UPSTREAM, BASELINE, GATEWAY):
            findings.note(figure.key, name, 1.0)
    found = lines(findings, QUICK)
    assert [line.key for line in found] == [figure.key for figure in FIGURES]
    assert len(table(found).splitlines()) == len(found) + 1
    assert len(markdown(found, QUICK).splitlines()) == len(found) + 4
    assert {line.key: line.ok for line in found}["cpu_whole"] is True
