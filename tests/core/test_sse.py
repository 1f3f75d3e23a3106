"""Streams cut anywhere give the payloads that they give whole, and no others."""

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamError
from gateway.core.sse import Decoder, LineDecoder, SSEDecoder

BOM = "\ufeff".encode()
CHAT = '{"prompt":"你好 \u2028 caf\u00e9"}'.encode()

# (bytes, payloads): each case is decoded whole, byte by byte, and in two parts at every place.
SSE_CASES = {
    "one": (b"data: a\n\n", [b"a"]),
    "two": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "no space": (b"data:a\n\n", [b"a"]),
    "two spaces": (b"data:  a\n\n", [b" a"]),
    "a colon in it": (b"data: a: b\n\n", [b"a: b"]),
    "empty data": (b"data:\n\ndata: \n\n", [b"", b""]),
    "field without colon": (b"data\n\n", [b""]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
    "lines of one event": (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
    "CRLF between lines": (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
    "comment": (b": ping\n\ndata: a\n\n:\n\n", [b"a"]),
    "comment inside": (b"data: a\n: ping\ndata: b\n\n", [b"a\nb"]),
    "other fields": (b"event: x\nid: 1\nretry: 5\ndata: a\nDATA: b\ndatax: c\n\n", [b"a"]),
    "no data": (b"event: x\n\ndata: a\n\n", [b"a"]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "byte order mark": (BOM + b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"]),
    "half a mark": (BOM[:2] + b"data: a\n\ndata: b\n\n", [b"b"]),
    "what JSON may hold": (b"data: " + CHAT + b"\n\n", [CHAT]),
    "what only str.splitlines splits": (
        "data: a\x0b\x0c\x1c\x85\u2028\u2029b\n\n".encode(),
        ["a\x0b\x0c\x1c\x85\u2028\u2029b".encode()],
    ),
    "invalid UTF-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "unterminated": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "unterminated line": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "a field cut by the end": (b"data: a\n\ndat", [b"a"]),
    "only a mark": (BOM[:2], []),
    "nothing": (b"", []),
}

LINE_CASES = {
    "two": (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    "unterminated": (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
    "blank lines": (b"\n\n1\n \t\n\r\n2\n\n", [b"1", b"2"]),
    "CRLF is blank space to JSON": (b"1\r\n2\r\n", [b"1\r", b"2\r"]),
    "a CR ends no line": (b"1\r2\n", [b"1\r2"]),
    "byte order mark": (BOM + b"1\n2\n", [b"1", b"2"]),
    "what JSON may hold": (CHAT + b"\n", [CHAT]),
    "nothing": (b"", []),
}

CASES = [
    pytest.param(decoder, data, payloads, id=f"{decoder.__name__}: {name}")
    for decoder, cases in ((SSEDecoder, SSE_CASES), (LineDecoder, LINE_CASES))
    for name, (data, payloads) in cases.items()
]


def decoded(decoder: Decoder, chunks: Sequence[bytes]) -> list[bytes]:
    """All payloads of these chunks and the end."""
    found = [payload for chunk in chunks if chunk for payload in decoder.feed(chunk)]
    return found + decoder.feed(b"")


@pytest.mark.parametrize(("decoder", "data", "payloads"), CASES)
def test_payloads(decoder: Callable[[], Decoder], data: bytes, payloads: list[bytes]) -> None:
    assert decoded(decoder(), [data]) == payloads
    assert decoded(decoder(), [bytes([byte]) for byte in data]) == payloads
    for at in range(len(data)):
        assert decoded(decoder(), [data[:at], data[at:]]) == payloads, f"cut at {at}"


@pytest.mark.parametrize(
    ("decoder", "data", "payloads"),
    [
        (SSEDecoder, b"data: a\n\ndata: b\n\ndata: c", [b"a", b"b"]),
        (SSEDecoder, b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (SSEDecoder, b"data: a\r\r", [b"a"]),
        (LineDecoder, b"1\n2\n3", [b"1", b"2"]),
    ],
)
def test_an_event_is_given_as_soon_as_its_last_byte_is_there(
    decoder: Callable[[], Decoder], data: bytes, payloads: list[bytes]
) -> None:
    assert decoder().feed(data) == payloads
    made = decoder()
    assert [payload for byte in data for payload in made.feed(bytes([byte]))] == payloads


def test_the_end_is_an_end_only_once() -> None:
    for decoder in (SSEDecoder(), LineDecoder()):
        assert decoder.feed(b"data: a") == []
        assert len(decoder.feed(b"")) == 1
        assert decoder.feed(b"") == []


def by_the_letter(stream: str) -> list[str]:
    """WHATWG HTML 9.2.6, one line at a time, except that the end of the stream completes an event."""
    found, data = [], []
    lines = re.split(r"\r\n|\n|\r", stream.removeprefix("\ufeff"))
    for line in [*lines, ""]:
        if line == "":
            found += ["\n".join(data)] if data else []
            data = []
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
    return found


PIECES = st.sampled_from(
    [
        "data",
        ":",
        " ",
        "data: ",
        "data:",
        "\n",
        "\n\n",
        "\r",
        "\r\n",
        "\r\n\r\n",
        "x",
        "é",
        "\ufeff",
        "\u2028",
        "id: 1",
    ]
)


@st.composite
def cut(draw: st.DrawFn, pieces: st.SearchStrategy[str]) -> tuple[str, list[bytes]]:
    """A text, and its bytes cut somewhere."""
    text = "".join(draw(st.lists(pieces, max_size=25)))
    data = text.encode()
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return text, [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]


@given(cut(PIECES))
def test_any_cut_of_any_stream_reads_as_the_standard_says(case: tuple[str, list[bytes]]) -> None:
    text, chunks = case
    assert decoded(SSEDecoder(), chunks) == [payload.encode() for payload in by_the_letter(text)]


@given(cut(st.sampled_from(['{"a":1}', "\n", "\r\n", " ", "x", "é", "\u2028", "\ufeff"])))
def test_any_cut_of_lines_reads_as_whole(case: tuple[str, list[bytes]]) -> None:
    text, chunks = case
    wanted = [line.encode() for line in text.removeprefix("\ufeff").split("\n") if line.strip(" \r")]
    assert decoded(LineDecoder(), chunks) == wanted


PAYLOADS = st.lists(
    st.binary(min_size=1, max_size=30).filter(lambda p: not set(p) & set(b"\r\n")), max_size=8
)


@given(PAYLOADS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(1, 20))
def test_what_is_encoded_is_decoded(payloads: list[bytes], end: bytes, size: int) -> None:
    data = b"".join(b"data: " + payload + end + end for payload in payloads)
    assert decoded(SSEDecoder(), [data[at : at + size] for at in range(0, len(data), size)]) == payloads
    lines = [payload for payload in payloads if not payload.isspace() and not payload.startswith(BOM)]
    data = b"".join(line + b"\n" for line in lines)
    assert decoded(LineDecoder(), [data[at : at + size] for at in range(0, len(data), size)]) == lines


LIMIT = 50


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("decoder", "before", "after"), [(SSEDecoder, b"data: ", b"\n\n"), (LineDecoder, b"", b"\n")]
)
def test_an_event_of_the_largest_size_passes_and_a_larger_one_does_not(
    decoder: Callable[[int], Decoder], before: bytes, after: bytes, size: int
) -> None:
    for extra in (0, 1):
        whole = before + b"x" * (LIMIT - len(before) + extra) + after
        data = whole * 3
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        if extra:
            with pytest.raises(UpstreamError) as caught:
                decoded(decoder(LIMIT), chunks)
            assert caught.value.code == "upstream_bad_response"
        else:
            assert len(decoded(decoder(LIMIT), chunks)) == 3


@pytest.mark.parametrize("decoder", [SSEDecoder, LineDecoder])
def test_an_event_without_an_end_is_refused_before_it_is_held(decoder: Callable[[int], Decoder]) -> None:
    made = decoder(1000)
    with pytest.raises(UpstreamError):
        for _ in range(1100):
            made.feed(b"x")


@pytest.mark.parametrize("decoder", [SSEDecoder, LineDecoder])
def test_a_large_event_in_small_pieces_is_read_in_linear_time(decoder: Callable[[], Decoder]) -> None:
    """A megabyte in half a million pieces: work that grows with the square would take hours."""
    piece = b"xx"
    made = decoder()
    made.feed(b"data: ")
    for _ in range(1 << 19):
        made.feed(piece)
    [payload] = made.feed(b"\n\n")
    assert len(payload.removeprefix(b"data: ")) == 1 << 20
