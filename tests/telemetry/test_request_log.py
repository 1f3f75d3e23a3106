"""The log of requests: lines in order, none lost at a normal end, and never in the way of a request."""

import asyncio
import json
import logging
import os
import threading
import time

import pytest

from gateway.record import Record
from gateway.telemetry import requests
from gateway.telemetry.lines import as_json
from gateway.telemetry.requests import PIECE, RequestLog, to_descriptor
from tests.ledger.books import BOUND, record
from tests.serve.house import soon


def named(record: Record) -> bytes:
    return record.request_id.encode() + b"\n"


async def test_none_is_lost_at_a_normal_end_and_they_are_in_order() -> None:
    pieces: list[bytes] = []
    log = RequestLog(as_json, pieces.append)
    async with log.running():
        for number in range(3000):
            log.observe(record(f"req_{number}"))
            if number % 500 == 0:
                await asyncio.sleep(0)
    ids = [json.loads(line)["id"] for line in b"".join(pieces).splitlines()]
    assert ids == [f"req_{number}" for number in range(3000)]
    assert max(map(len, pieces)) <= PIECE and all(piece.endswith(b"\n") for piece in pieces)


async def test_a_line_comes_while_others_are_awaited() -> None:
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    log = RequestLog(named, lambda _: loop.call_soon_threadsafe(written.set))
    async with log.running():
        log.observe(record("req_1"))
        await soon(written.wait())


async def test_what_comes_before_and_after_is_written_at_once() -> None:
    pieces: list[bytes] = []
    log = RequestLog(named, pieces.append)
    log.observe(record("before"))
    async with log.running():
        pass
    log.observe(record("after"))
    assert pieces == [b"before\n", b"after\n"]


async def test_a_reader_that_takes_nothing_holds_nobody_up_and_what_is_dropped_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(requests, "MOST", 100)
    taken = threading.Event()
    pieces: list[bytes] = []

    def write(piece: bytes) -> None:
        assert taken.wait(BOUND)
        pieces.append(piece)

    log = RequestLog(named, write)
    with caplog.at_level(logging.WARNING):
        async with log.running():
            for number in range(1000):
                log.observe(record(f"req_{number}"))
            taken.set()
    assert b"".join(pieces).count(b"\n") == 100
    assert "900 requests have no line in the log" in caplog.text


async def test_an_end_waits_for_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "END", 0.05)
    taken = threading.Event()
    log = RequestLog(named, lambda _: taken.wait(BOUND))
    async with log.running():
        log.observe(record("req_1"))
    taken.set()


def test_a_full_pipe_is_waited_for_and_a_closed_one_is_not() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = b"x" * 300_000
    thread = threading.Thread(target=to_descriptor(writer), args=(data,))
    thread.start()
    got = b""
    end = time.monotonic() + BOUND
    while len(got) < len(data) and time.monotonic() < end:
        got += os.read(reader, 65536)
    thread.join(BOUND)
    assert got == data
    os.close(reader)
    to_descriptor(writer)(b"lost\n")
    os.close(writer)
