"""What a client can do to the server: over raw sockets, against a process of its own.

A connection that the server closes serves as the clock: what another one did before outlived its deadline.
"""

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from gateway.http.connection import MAX_HEAD
from tests.cli.victim import BIG
from tests.conftest import ROOT

BOUND = 20  # seconds until a test gives up waiting


@dataclass
class Server:
    port: int
    process: subprocess.Popen[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=BOUND)

    def answer(self, request: bytes) -> bytes:
        """All that comes back until the server closes."""
        with self.connect() as client:
            client.sendall(request)
            return rest(client)

    def stop(self) -> str:
        """Its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=BOUND)
        assert self.process.returncode == 0
        return log


@contextmanager
def server(head: float = 60, stall: float = 60, drain: float = 5, linger: float = 0.1) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.cli.victim", *map(str, (head, stall, drain, linger))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True)
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    with server(head=0.2) as running:
        yield running


def rest(client: socket.socket) -> bytes:
    pieces = []
    with suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def one(client: socket.socket) -> bytes:
    """One answer that has a length or chunks; the connection stays open."""
    data = b""
    while not data.endswith((b"0\r\n\r\n", b"\r\n\r\nno")):
        piece = client.recv(1 << 16)
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def error(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/json" in lines
    assert b"connection: close" in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    assert f"content-length: {len(body)}".encode() in lines
    return int(head.split()[1]), json.loads(body)["error"]


GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"

# --- deadlines ---


def test_a_connection_that_sends_nothing_is_closed(impatient: Server) -> None:
    assert impatient.answer(b"") == b""


def test_a_head_that_drips_is_closed_before_it_is_whole(impatient: Server) -> None:
    head = b"GET /echo HTTP/1.1\r\nX: " + b"x" * 60_000
    with impatient.connect() as client:
        client.settimeout(0.01)
        closed = False
        for at in range(len(head)):
            try:
                client.sendall(head[at : at + 1])
                closed = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
            if closed:
                break
        assert closed


def test_a_second_head_has_the_deadline_too(impatient: Server) -> None:
    with impatient.connect() as client:
        client.sendall(GET)
        assert b"0 bytes" in one(client)
        client.sendall(GET[:20])
        assert rest(client) == b""


def test_an_idle_connection_outlives_the_deadline_for_heads(impatient: Server) -> None:
    with impatient.connect() as idle:
        idle.sendall(GET)
        one(idle)
        assert impatient.answer(b"") == b""
        idle.sendall(GET)
        assert b"0 bytes" in one(idle)


def test_a_body_may_take_longer_than_the_deadline_for_heads(impatient: Server) -> None:
    with impatient.connect() as slow:
        slow.sendall(POST + b"12345")
        assert impatient.answer(b"") == b""
        slow.sendall(b"67890")
        assert b"10 bytes" in one(slow)


def test_an_answer_may_take_longer_than_the_deadline_for_heads(impatient: Server) -> None:
    with impatient.connect() as client:
        client.sendall(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
        while b"begun" not in client.recv(1 << 16):
            pass
        assert impatient.answer(b"") == b""
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_a_refused_body_that_never_ends_is_closed(impatient: Server) -> None:
    with impatient.connect() as client:
        client.sendall(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nabc")
        assert one(client).startswith(b"HTTP/1.1 401")
        client.sendall(b"def")
        assert rest(client) == b""


@pytest.mark.parametrize("path", [b"/big", b"/huge"])
def test_a_client_that_takes_nothing_is_dropped(path: bytes) -> None:
    with server(stall=0.2) as running, running.connect() as stalled:
        stalled.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        reset = select.poll()
        reset.register(stalled, 0)  # nothing is asked for, so only errors and the end are told
        assert reset.poll(BOUND * 1000)
        assert len(rest(stalled)) < BIG << 20


def test_the_application_behind_a_client_that_takes_nothing_is_told() -> None:
    with server(stall=0.2) as running, running.connect() as stalled:
        stalled.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        running.answer(b"GET /until-left HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")


@pytest.mark.slow
def test_a_client_that_is_slow_but_steady_gets_all() -> None:
    with server(head=0.2, stall=3) as running, running.connect() as steady:
        steady.sendall(b"GET /huge HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(16):
            running.answer(b"")  # takes 0.2 s, so that all takes longer than may pass without a byte taken
            read = 0
            while read < 3 << 20:
                read += len(steady.recv(1 << 16))
        assert rest(steady).endswith(b"0\r\n\r\n")


# --- what is not HTTP ---

NOT_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"hello\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/9.1\r\nHost: a\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("sent", NOT_HTTP)
def test_what_is_not_http_is_answered_400_in_the_envelope(patient: Server, sent: bytes) -> None:
    status, body = error(patient.answer(sent))
    assert (status, body["code"], body["type"]) == (400, "invalid_http", "invalid_request_error")


def test_garbage_behind_a_running_answer_does_not_end_up_in_it(patient: Server) -> None:
    with patient.connect() as client:
        client.sendall(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
        begun = client.recv(1 << 16)
        client.sendall(b"\x00garbage\r\n\r\n")
        answer = begun + rest(client)
    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n")


def test_an_upgrade_is_ignored(patient: Server) -> None:
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    with patient.connect() as client:
        client.sendall(GET.replace(b"Host", upgrade + b"Host"))
        assert one(client).startswith(b"HTTP/1.1 200")


# --- size ---

LINE = b"GET /echo HTTP/1.1\r\nHost: a\r\n"


def padded(before: bytes, after: bytes, size: int) -> bytes:
    return before + b"x" * (size - len(before + after)) + after


def shapes(size: int) -> dict[str, bytes]:
    """Heads of exactly this many bytes, and as many bytes of heads that go on."""
    many = b"X: 123456\r\n" * 5_000
    return {
        "one header": padded(LINE + b"X: ", b"\r\n\r\n", size),
        "many headers": padded(LINE + many + b"Y: ", b"\r\n\r\n", size),
        "the path": padded(b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n", size),
        "the query": padded(b"GET /echo?", b" HTTP/1.1\r\nHost: a\r\n\r\n", size),
        "a header that goes on": padded(LINE + b"X: ", b"", size),
        "headers that go on": padded(LINE + many + b"Y: ", b"\r\n", size),
        "a path that goes on": padded(b"GET /", b"", size),
    }


def send_in(pieces: int, client: socket.socket, data: bytes) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = -(-len(data) // pieces)
    for at in range(0, len(data), size):
        client.sendall(data[at : at + size])


@pytest.mark.parametrize("pieces", [1, 2, 40])
@pytest.mark.parametrize("shape", shapes(1 << 17))
def test_one_byte_more_than_64_kib_of_head_is_answered_431(patient: Server, shape: str, pieces: int) -> None:
    with patient.connect() as client:
        send_in(pieces, client, shapes(MAX_HEAD + 1)[shape])
        status, body = error(rest(client))
        assert (status, body["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("pieces", [1, 2, 40])
@pytest.mark.parametrize("shape", ["one header", "many headers", "the query"])
def test_a_head_of_64_kib_is_read(patient: Server, shape: str, pieces: int) -> None:
    with patient.connect() as client:
        for _ in range(2):
            send_in(pieces, client, shapes(MAX_HEAD)[shape])
            assert b"0 bytes" in one(client)


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"x"], ids=["trailers", "a trailer"])
def test_trailers_without_an_end_are_closed(patient: Server, endless: bytes) -> None:
    with patient.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                client.sendall(endless * (1 << 16))


def test_bodies_are_not_counted_as_heads(patient: Server) -> None:
    chunks = b"1\r\nx\r\n" * 30_000 + b"100000\r\n" + b"x" * (1 << 20) + b"\r\n0\r\n\r\n"
    with patient.connect() as client:
        for _ in range(3):
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
            assert b"%d bytes" % ((1 << 20) + 30_000) in one(client)


def test_many_requests_on_one_connection_are_not_counted_together(patient: Server) -> None:
    with patient.connect() as client:
        for _ in range(40):
            client.sendall(LINE + b"X: " + b"x" * 4_000 + b"\r\n\r\n")
            assert b"0 bytes" in one(client)


# --- the end, and the log ---


def test_a_cut_answer_has_no_end_and_is_no_error_in_the_log() -> None:
    with server() as running:
        answer = running.answer(b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"not all\r\n")
        assert running.stop() == ""


def test_a_bug_is_logged_with_its_place_but_without_its_words() -> None:
    with server() as running:
        running.answer(b"GET /bug HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        log = running.stop()
    assert "ERROR Exception in ASGI application" in log
    assert "builtins.ValueError" in log and "builtins.KeyError" in log
    assert 'victim.py", line' in log and ", in bug" in log
    assert "secret'" not in log and "KeyError: " not in log and "ValueError: " not in log


def test_a_task_that_failed_unseen_is_logged_without_its_words() -> None:
    with server() as running:
        running.answer(b"GET /forgotten HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        log = running.stop()
    assert "Task exception was never retrieved" in log and "builtins.ValueError" in log
    assert "exception=" not in log


def test_requests_still_waiting_when_the_drain_ends_are_answered_503() -> None:
    with server(drain=0.1) as running, running.connect() as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        running.answer(b"GET /until-left HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        log = running.stop()
        status, body = error(rest(client))
    assert (status, body["code"]) == (503, "shutting_down")
    assert "Traceback" not in log and "File" not in log


def test_streams_still_running_when_the_drain_ends_are_cut() -> None:
    with server(drain=0.1) as running, running.connect() as client:
        client.sendall(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
        begun = client.recv(1 << 16)
        log = running.stop()
        answer = begun + rest(client)
    assert answer.endswith(b"begun\r\n")
    assert "File" not in log


def test_a_request_that_ends_within_the_drain_is_answered() -> None:
    with server() as running, running.connect() as client:
        client.sendall(POST + b"12345")
        with running.connect() as other:
            other.sendall(GET)
            one(other)
            running.process.send_signal(signal.SIGTERM)
            assert rest(other) == b""  # idle: closed soon, so the end has begun
        client.sendall(b"67890")
        assert b"10 bytes" in rest(client)
        assert running.process.wait(BOUND) == 0


def test_a_request_that_comes_while_an_idle_connection_ends_is_answered() -> None:
    with server(linger=BOUND, drain=BOUND) as running, running.connect() as idle, running.connect() as busy:
        idle.sendall(GET)
        one(idle)
        busy.sendall(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
        begun = busy.recv(1 << 16)
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):  # once it has stopped listening
            while True:
                running.connect().close()
        idle.sendall(GET)
        answer = rest(idle)
        busy.close()
        assert begun and answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
        assert running.process.wait(BOUND) == 0


@pytest.mark.parametrize("asked", [b"h2c", b"websocket", b"TLS/1.0"])
def test_a_request_that_asks_for_another_protocol_keeps_its_body(patient: Server, asked: bytes) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade\r\nUpgrade: %s\r\n" % asked
    answer = patient.answer(head + b"Content-Length: 10\r\n\r\n0123456789")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"10 bytes" in answer
