"""What an upstream that does not answer means: every row of the table, as a function and over a socket."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import modal
from gateway.core.decode.edge import PlainText, absent, failure_of, instead
from gateway.core.decode.failure import Place
from gateway.core.errors import ContextTooLong, GatewayError, NoContainer
from tests.upstreams import fake
from tests.upstreams.calling import asked

PLACE = Place("models.m.upstream", secrets=("ws-secret",))
MODAL = b"modal-http: "

# (status, body, (status, code, retry, useless), what the message must name)
ROWS: list[tuple[int, bytes, tuple[int, str, str, bool], str]] = [
    (401, MODAL + b"missing credentials for proxy authorization",
     (502, "upstream_auth", "elsewhere", True), "modal_key and modal_secret of models.m.upstream"),
    (401, MODAL + b"invalid credentials for proxy authorization",
     (502, "upstream_auth", "elsewhere", True), "modal_key and modal_secret of models.m.upstream"),
    (401, b"", (502, "upstream_auth", "elsewhere", True), "models.m.upstream"),
    (401, b'{"detail":{"error":{"message":"","code":"invalid_api_key"}}}',
     (502, "upstream_auth", "elsewhere", True), "models.m.upstream"),
    (403, b"", (502, "upstream_auth", "elsewhere", True), "models.m.upstream"),
    (404, MODAL + b"app for invoked web endpoint is stopped",
     (503, "upstream_stopped", "elsewhere", True), "models.m.upstream.url"),
    (404, MODAL + b"workspace ac-123 is disabled",
     (503, "upstream_stopped", "elsewhere", True), "models.m.upstream.url"),
    (404, MODAL + b"invalid function call",
     (502, "upstream_not_found", "once", False), "models.m.upstream.url"),
    (404, MODAL + b"something new", (502, "upstream_not_found", "elsewhere", True), "models.m.upstream.url"),
    (404, b'{"detail":"Not Found"}', (502, "upstream_not_found", "elsewhere", True), "models.m.upstream.url"),
    (404, b'{"error":{"message":"no such model","code":"model_not_found"}}',
     (502, "upstream_not_found", "elsewhere", True), "models.m.upstream.model"),
    (405, b'{"detail":"Method Not Allowed"}',
     (502, "upstream_refused", "never", True), "models.m.upstream.url"),
    (408, b"Missing request, possibly due to expiry or cancellation",
     (503, "upstream_unavailable", "once", False), ""),
    (400, MODAL + b"bad redirect method", (502, "upstream_error", "never", False), "models.m.upstream.url"),
    (400, b'{"error":{"message":"bad","code":"bad_request","status":400}}',
     (400, "upstream_bad_request", "never", False), "bad"),
    (400, b'{"error":{"message":"long","code":"context_length_exceeded"}}',
     (400, "context_length_exceeded", "never", False), "maximum context length"),
    (400, b'{"detail":"prompt is empty"}', (400, "upstream_bad_request", "never", False), "prompt is empty"),
    (400, b'{"object":"error","message":"Only x allowed now, your model y","code":40301}',
     (502, "upstream_not_found", "elsewhere", True), "models.m.upstream.model"),
    (400, b'{"object":"error","message":"This model\'s maximum context length is 9","code":40303}',
     (400, "context_length_exceeded", "never", False), "maximum context length"),
    (400, b'{"object":"error","message":"Service Unavailable","code":50001}',
     (502, "upstream_error", "elsewhere", False), ""),
    (400, b"<html>400 Bad Request</html>", (502, "upstream_refused", "never", True), "models.m.upstream.url"),
    (413, b"<html>", (400, "upstream_bad_request", "never", False), ""),
    (422, b'{"detail":[{"type":"extra_forbidden","loc":["body","stream"],"msg":"x","input":true}]}',
     (502, "upstream_refused", "never", True), "models.m.upstream.request_fields: {stream: null}"),
    (422, b'{"detail":[{"type":"extra_forbidden","loc":["body","parameters","top_k"],"msg":"x"}]}',
     (502, "upstream_refused", "never", True), "`parameters.top_k`"),
    (422, b'{"detail":[{"type":"missing","loc":["body","inputs"],"msg":"Field required"}]}',
     (502, "upstream_refused", "never", True), "models.m.upstream.request_fields: {prompt: inputs}"),
    (422, b'{"detail":[{"type":"value_error.missing","loc":["body","inputs"],"msg":"field required"}]}',
     (502, "upstream_refused", "never", True), "{prompt: inputs}"),
    (422, b'{"detail":[{"loc":["body"],"msg":"x"}]}',
     (502, "upstream_refused", "never", True), "models.m.upstream.url"),
    (422, b'{"detail":[{"loc":["body","a b\\n"],"msg":"x"}]}', (502, "upstream_refused", "never", True), ""),
    (422, b'{"error":"`inputs` is longer than the model allows","error_type":"validation"}',
     (400, "context_length_exceeded", "never", False), ""),
    (422, b"", (502, "upstream_refused", "never", True), "models.m.upstream.url"),
    (429, b"", (429, "upstream_rate_limited", "elsewhere", False), ""),
    (429, b'{"error":{"message":"full","code":"busy","status":429}}',
     (429, "upstream_rate_limited", "elsewhere", False), "full"),
    (500, MODAL + b"internal error: function execution timed out",
     (504, "upstream_timeout", "never", True), "timeout="),
    (500, MODAL + b"internal error: function was terminated by signal",
     (502, "upstream_error", "elsewhere", False), ""),
    (500, MODAL + b"internal error: status InternalFailure: Server has lost track of input",
     (502, "upstream_error", "elsewhere", False), ""),
    (500, MODAL + b"internal error: status Failure: ValueError('the secret prompt')",
     (502, "upstream_error", "elsewhere", False), ""),
    (500, b"Internal Server Error", (502, "upstream_error", "elsewhere", False), ""),
    (502, b"<html>", (502, "upstream_error", "elsewhere", False), ""),
    (503, b"", (503, "upstream_cold", "elsewhere", False), "models.m.upstream"),
    (503, b"no available server", (503, "upstream_cold", "elsewhere", False), "models.m.upstream"),
    (503, MODAL + b"anything", (503, "upstream_cold", "elsewhere", False), "models.m.upstream"),
    (503, b'{"error":{"message":"x","code":"out_of_memory"}}',
     (503, "out_of_memory", "elsewhere", False), ""),
    (503, b'{"error":{"message":"x","code":"engine_dead"}}', (503, "engine_dead", "elsewhere", False), ""),
    (503, b'{"error":{"message":"x"}}', (503, "upstream_unavailable", "elsewhere", False), ""),
    (504, b"", (504, "upstream_timeout", "elsewhere", False), ""),
    (529, b"", (502, "upstream_error", "elsewhere", False), ""),
    (204, b"", (502, "upstream_bad_response", "never", False), "models.m.upstream.url"),
    (302, b"", (502, "upstream_redirect", "never", True), "models.m.upstream.url"),
]  # fmt: skip


def told(error: GatewayError) -> tuple[int, str | None, str, bool]:
    return error.status, error.code, error.retry, error.headers.get("x-should-retry") == "false"


@pytest.mark.parametrize(("status", "body", "wanted", "named"), ROWS, ids=lambda value: str(value)[:60])
def test_what_it_means(status: int, body: bytes, wanted: tuple[int, str, str, bool], named: str) -> None:
    error = failure_of(PLACE, status, {}, body)
    assert told(error) == wanted
    assert named in error.message
    assert "the secret prompt" not in error.message


@pytest.mark.parametrize(("status", "body", "wanted", "named"), ROWS, ids=lambda value: str(value)[:60])
async def test_what_a_client_sees_after_one_call(
    status: int, body: bytes, wanted: tuple[int, str, str, bool], named: str
) -> None:
    kind = (
        "application/json"
        if body.startswith(b"{")
        else "text/html"
        if body.startswith(b"<")
        else "text/plain"
    )
    async with fake.serving(fake.always(fake.response(body, kind, f"{status} x"))) as server:
        assert told((await asked(server.url)).failure) == wanted
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (modal.MISSING_CREDENTIALS, "upstream_auth"),
        (modal.INVALID_CREDENTIALS, "upstream_auth"),
        (modal.STOPPED, "upstream_stopped"),
        (modal.UNKNOWN, "upstream_not_found"),
        (modal.DISABLED.format(workspace="acme"), "upstream_stopped"),
        (modal.BAD_REDIRECT, "upstream_error"),
        (modal.TIMED_OUT, "upstream_timeout"),
    ],
)
def test_a_text_of_the_edge_is_known_whatever_the_status(text: str, code: str) -> None:
    for status in (200, 400, 404, 500, 503):
        assert failure_of(PLACE, status, {}, text.encode()).code == code
    made = instead(PLACE, text.encode())
    assert made is not None
    assert made.code == code


def test_a_get_that_asks_for_nothing_tells_an_app_from_an_edge() -> None:
    """The rows where it matters are in tests/routing/test_waking.py; here is what holds for all."""
    for status in range(200, 600):
        for body in (b"", b"hello", b"{}", b'{"error":{"message":"x"}}', b"<html>"):
            if (error := absent(PLACE, status, {}, body)) is not None:
                assert told(error) == told(failure_of(PLACE, status, {}, body))
                assert status in (401, 403, 408, 429, 502, 503, 504)
                assert status in (401, 403) or not body.startswith(b"{")
        assert absent(PLACE, status, {}, MODAL + b"something new") is not None
        assert absent(PLACE, status, {}, modal.BAD_REDIRECT.encode()) is None


def test_no_container_is_its_own_class() -> None:
    assert isinstance(failure_of(PLACE, 503, {}, b""), NoContainer)
    assert not isinstance(failure_of(PLACE, 503, {}, b'{"error":{"message":"x"}}'), NoContainer)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked_for", "wanted"),
    [("1", "1"), ("60", "60"), ("61", "60"), ("3600", "60"), ("9" * 30, "5"), ("", "5"), ("-1", "5"),
     ("1.5", "5"), ("Wed, 21 Oct 2026 07:28:00 GMT", "5"), ("٣", "5")],
)  # fmt: skip
def test_retry_after_is_passed_on_up_to_a_minute(status: int, asked_for: str, wanted: str) -> None:
    assert failure_of(PLACE, status, {"retry-after": asked_for}, b"").headers["retry-after"] == wanted


def test_retry_after_is_not_promised_where_waiting_does_not_help() -> None:
    for status, body in ((404, MODAL + b"app is stopped"), (401, b""), (500, b"")):
        assert "retry-after" not in failure_of(PLACE, status, {"retry-after": "5"}, body).headers


def test_credentials_are_named_as_they_are_configured() -> None:
    place = Place("models.m.upstreams[1]", credentials="api_key")
    assert "api_key of models.m.upstreams[1]" in failure_of(place, 401, {}, b"").message


def test_a_field_that_the_gateway_added_is_named() -> None:
    place = Place("models.m.upstream", text="messages", added="stream_options")
    for status, body in (
        (400, b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'),
        (422, b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}'),
    ):
        error = failure_of(place, status, {}, body)
        assert told(error) == (502, "upstream_refused", "never", True)
        assert "models.m.upstream.request_fields: {stream_options: null}" in error.message


def test_too_long_is_said_in_words_that_clients_know() -> None:
    error = failure_of(PLACE, 400, {}, b'{"error":{"message":"x","code":"context_length_exceeded"}}')
    assert isinstance(error, ContextTooLong)
    assert error.param == "messages"


# --- the edge in place of an answer ---


async def test_the_edge_may_speak_with_a_status_of_success() -> None:
    stopped = MODAL + b"app for invoked web endpoint is stopped"
    for kind in ("application/json", "text/plain"):
        async with fake.serving(fake.always(fake.response(stopped, kind))) as server:
            assert (await asked(server.url)).failure.code == "upstream_stopped"
    assert instead(PLACE, MODAL + b"something new") is not None
    assert instead(PLACE, b'{"prompt":"modal-http: is an edge"}') is None


@pytest.mark.parametrize(
    "text", [b"", b"m", b"modal-", b"modal-https", b"hello modal-http: x", "modäl".encode()]
)
def test_text_that_only_begins_like_the_edge_is_text(text: bytes) -> None:
    for at in range(len(text) + 1):
        made = PlainText(PLACE)
        parts = [part for chunk in (text[:at], text[at:]) if chunk for part in made.feed(chunk)]
        assert b"".join(parts + made.feed(b"")) == text


def test_the_edge_is_known_wherever_its_text_is_cut() -> None:
    text = MODAL + b"app for invoked web endpoint is stopped"
    for at in range(len(text)):
        made = PlainText(PLACE)
        with pytest.raises(GatewayError):
            for chunk in (text[:at], text[at:]):
                if chunk:
                    made.feed(chunk)


# --- any answer at all ---


@given(
    st.integers(200, 599),
    st.dictionaries(st.sampled_from(["retry-after", "content-type"]), st.text(max_size=10)),
    st.binary(max_size=80)
    | st.binary(max_size=60).map(lambda tail: MODAL + tail)
    | st.text(max_size=60).map(lambda words: f'{{"error":"{words}"}}'.encode()),
)
def test_every_answer_is_an_error_with_a_clean_message(
    status: int, headers: Mapping[str, str], body: bytes
) -> None:
    error = failure_of(PLACE, status, headers, body)
    assert 400 <= error.status <= 504
    assert error.status != 401
    assert error.message.isprintable()
    assert len(error.message) < 700
    assert re.fullmatch(r"\d{1,2}", error.headers.get("retry-after", "5"))
