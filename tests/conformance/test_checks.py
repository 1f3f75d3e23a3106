"""Each fault is found by the check that is for it, and by no other; what is merely absent is not wrong."""

from __future__ import annotations

import pytest

from gateway.conformance.client import NoAnswer
from gateway.conformance.fit import Credentials
from gateway.conformance.reading import Answer
from gateway.conformance.run import Report, examine
from gateway.conformance.verdict import Result
from tests.conformance.faulty import GARBAGE, faulty
from tests.serve.house import BOUND, listening, soon

FAULTS = {
    "leaks": "stops",
    "patterns": "stops",
    "too long": "max_tokens",
    "says stop": "max_tokens",
    "usage": "usage",
    "cut characters": "unicode",
    "surrogates": "unicode",
    "spaced echo": "echo",
    "mixes": "parallel",
    "error status": "errors",
    "silent": "unknown fields",
    "stream type": "streamed",
    "dies": "cancel",
}


async def examined(fault: str, path: str = "/") -> Report:
    async with listening(faulty(fault)) as port:
        return await soon(examine(f"http://127.0.0.1:{port}{path}", Credentials(), BOUND))


def found(report: Report, result: Result) -> list[str]:
    return [name for name, verdict in report.verdicts.items() if verdict.result is result]


@pytest.mark.parametrize(("fault", "check"), FAULTS.items())
async def test_a_fault_is_found_by_its_check(fault: str, check: str) -> None:
    report = await examined(fault)
    assert found(report, Result.WRONG) == [check], report.verdicts
    assert not report.good


async def test_a_server_without_fault_passes_every_check() -> None:
    report = await examined("none")
    assert report.requests <= 40
    assert found(report, Result.OK) == [name for name in report.verdicts if name != "fields"]
    assert report.verdicts["fields"].why.endswith("frequency_penalty")


async def test_a_missing_bos_is_a_hint_and_no_fault() -> None:
    report = await examined("no BOS")
    assert found(report, Result.INCONCLUSIVE) == ["BOS"]
    assert report.good


async def test_bytes_that_the_model_itself_says_are_no_fault_of_the_server() -> None:
    report = await examined("no characters")
    assert found(report, Result.INCONCLUSIVE) == ["unicode"]
    assert report.good


async def test_a_model_that_ends_a_stream_at_once_is_asked_again() -> None:
    report = await examined("silent once")
    assert report.verdicts["streamed"].result is Result.OK
    assert report.good


async def test_a_redirect_on_the_same_host_is_followed() -> None:
    report = await examined("none", "/later")
    assert report.verdicts["whole"].result is Result.OK


async def test_credentials_never_follow_a_redirect_to_another_host() -> None:
    async with listening(faulty("none")) as port:
        with pytest.raises(NoAnswer, match="redirects to another host, localhost"):
            await soon(examine(f"http://127.0.0.1:{port}/elsewhere", Credentials(), BOUND))


async def test_a_place_that_is_not_there_ends_the_examination() -> None:
    report = await examined("none", "/nowhere")
    assert list(report.verdicts) == ["whole"]
    assert not report.good
    assert report.config is None
    assert report.requests == 1


async def test_an_answer_without_a_text_is_wrong_in_one_line() -> None:
    async with listening(faulty("none")) as port:
        for number, answer in enumerate(GARBAGE):
            url = f"http://127.0.0.1:{port}/garbage/{number}"
            report = await soon(examine(url, Credentials(), BOUND))
            assert found(report, Result.WRONG) == ["whole"], answer
            assert report.verdicts["whole"].why.isprintable()
            assert report.config is None


async def test_a_server_that_is_busy_refuses_no_field() -> None:
    report = await examined("none", "/busy")
    assert report.verdicts["fields"].result is Result.WRONG
    assert report.config is not None
    assert "request_fields" not in report.config["models"]["my-model"]["upstream"]


@pytest.mark.parametrize(
    ("pieces", "cumulative"),
    [
        (("1", "1 2", "1 2 3"), True),
        (("你\ufffd", "你好"), True),
        (("a", "a", "a"), False),
        (("1", " 2"), False),
        (("whole",), False),
        ((), False),
    ],
)
def test_pieces_that_repeat_those_before_are_recognised(pieces: tuple[str, ...], cumulative: bool) -> None:
    assert Answer("sse", "text/event-stream", pieces).cumulative is cumulative

