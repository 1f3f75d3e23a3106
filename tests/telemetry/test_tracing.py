"""Spans: one a request, with what became of its calls below it; to a receiver of OTLP on loopback too."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.core.errors import UpstreamUnavailable
from gateway.core.events import Finish, Text, Usage
from gateway.routing.visit import Bounds
from gateway.telemetry.trace import Spans
from gateway.telemetry.tracing import Tracing
from tests.serve.house import Desk, Scripted, Visit, deployed, house, soon
from tests.serve.test_surface import call
from tests.telemetry.test_trace import ASK, GIVEN

HELLO = [Text("hello"), Finish("stop", Usage(3, 2))]


def begin(desk: Desk, *, content: bool = False) -> tuple[Tracing, InMemorySpanExporter]:
    """Spans of this desk's requests."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(Spans(endpoint="http://127.0.0.1:9", content=content), exporter)
    desk.service.trace, desk.service.traced, desk.service.keeps = tracing.begin, tracing.observe, content
    return tracing, exporter


async def spans(tracing: Tracing, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    """Those that were made, the request's last."""
    async with tracing.running():
        pass
    return list(exporter.get_finished_spans())


async def test_a_request_is_a_span_with_its_call_below() -> None:
    desk = Desk(deployed(Scripted("m", [HELLO])))
    tracing, exporter = begin(desk)
    await desk.ask(max_tokens=5, stream=True)
    call, request = await spans(tracing, exporter)
    assert (request.name, request.kind) == ("chat m", SpanKind.SERVER)
    assert (call.name, call.kind) == ("upstream m", SpanKind.CLIENT)
    assert call.parent is not None and call.parent.span_id == request.context.span_id
    assert request.parent is None and request.status.status_code is StatusCode.UNSET
    told = dict(request.attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("m", "m")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (3, 2)
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert (told["gen_ai.request.max_tokens"], told["http.response.status_code"]) == (5, 200)
    assert told["gen_ai.response.id"] == told["modal_gateway.request_id"]
    assert "hi" not in repr(told) and "hello" not in repr(told)
    for each in (call, request):
        wanted = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "modal_gateway"}
        assert wanted.items() <= dict(each.attributes or {}).items()


async def test_each_try_is_a_span_and_a_failed_one_says_how() -> None:
    failed = [UpstreamUnavailable("gone", retry="elsewhere")]
    desk = Desk(deployed(Scripted("a", failed), Scripted("b", [HELLO])))
    tracing, exporter = begin(desk)
    assert (await desk.ask()).status == 200
    first, second, request = await spans(tracing, exporter)
    assert [each.name for each in (first, second)] == ["upstream a", "upstream b"]
    assert first.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})["error.type"] == "upstream_unavailable"
    assert second.status.status_code is request.status.status_code is StatusCode.UNSET


async def test_a_request_that_fails_is_an_error_and_a_client_s_mistake_is_none() -> None:
    desk = Desk(deployed(Scripted("m", [UpstreamUnavailable("gone")])))
    tracing, exporter = begin(desk)
    await desk.ask()
    await desk.ask(model="nope")
    _, failed, refused = await spans(tracing, exporter)
    assert failed.status.status_code is StatusCode.ERROR and refused.status.status_code is StatusCode.UNSET
    assert (refused.attributes or {})["error.type"] == "model_not_found"


async def test_what_was_not_answered_has_no_response() -> None:
    desk = Desk(deployed(Scripted("m", [UpstreamUnavailable("gone")])))
    tracing, exporter = begin(desk)
    await desk.ask()
    await desk.ask(model="nope")
    _, failed, refused = [dict(each.attributes or {}) for each in await spans(tracing, exporter)]
    for told in (failed, refused):
        assert not any(name.startswith("gen_ai.response.") for name in told)
        assert told["modal_gateway.request_id"]
    assert (failed["gen_ai.request.model"], failed["modal_gateway.model"]) == ("m", "m")
    assert refused["gen_ai.request.model"] == "nope" and "modal_gateway.model" not in refused


async def test_the_wait_for_a_slot_and_for_a_container_are_spans() -> None:
    now = 0.0
    gone = asyncio.Event()

    async def second_later() -> None:
        nonlocal now
        now += 1.0
        await gone.wait()

    model = deployed(Scripted("m", [second_later, HELLO], [HELLO]), bounds=Bounds(1, 8, 60.0))
    [target] = model.upstreams
    desk = Desk(model)
    target._clock = lambda: now
    tracing, exporter = begin(desk)
    target.life.refused(0.0)
    first = desk.line()
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.take(first))
        await asyncio.sleep(0)
        group.create_task(desk.ask())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert target.slots.waiting == 1
        now += 2.0
        gone.set()
    made = await soon(spans(tracing, exporter))
    assert {each.name for each in made} == {"queue", "boot", "upstream m", "chat m"}
    by_id = {each.context.span_id: each for each in made}
    for each in made:
        above = by_id[each.parent.span_id].name if each.parent is not None else None
        wanted = {"queue": "chat m", "boot": "upstream m", "upstream m": "chat m", "chat m": None}
        assert above == wanted[each.name]
        assert each.start_time is not None and each.end_time is not None and each.end_time >= each.start_time
    [queue] = [each for each in made if each.name == "queue"]
    assert queue.end_time - queue.start_time == 2_000_000_000


@pytest.mark.parametrize("content", [False, True])
async def test_stops_are_content(content: bool) -> None:
    desk = Desk(deployed(Scripted("m", [HELLO])))
    tracing, exporter = begin(desk, content=content)
    await desk.ask(stop=["secret", "\n\n"])
    told = dict((await spans(tracing, exporter))[-1].attributes or {})
    wanted = ("secret", "\n\n") if content else None
    assert told.get("gen_ai.request.stop_sequences") == wanted
    assert ("secret" in repr(told)) is content


async def test_content_is_told_only_where_that_was_asked_for() -> None:
    desk = Desk(deployed(Scripted("m", [HELLO])))
    tracing, exporter = begin(desk, content=True)
    await desk.ask()
    told = dict((await spans(tracing, exporter))[-1].attributes or {})
    assert "gen_ai.request.stop_sequences" not in told  # none were sent
    assert told["gen_ai.input.messages"] == '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]'
    said = '[{"role":"assistant","parts":[{"type":"text","content":"hello"}]}]'
    assert told["gen_ai.output.messages"] == said


async def test_a_trace_that_is_not_sampled_is_passed_on_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    upstream = Scripted("m", [HELLO])
    desk = Desk(deployed(upstream))
    tracing, exporter = begin(desk)
    await desk.ask()
    assert await spans(tracing, exporter) == []
    sender = upstream.calls[0].sender
    assert sender.trace is not None and sender.trace[0].endswith("-00") and len(sender.trace[0]) == len(GIVEN)


# --- over sockets ---


@dataclass
class Receiver:
    """What an OTLP receiver got."""

    url: str
    got: list[ExportTraceServiceRequest] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.got
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.paths.append(self.path)
            made.got.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


async def answer(visit: Visit) -> None:
    await visit.say("hello")


async def test_a_receiver_gets_spans_that_join_client_and_container() -> None:
    with receiver() as otlp:
        async with house(answer, {"tracing": {"endpoint": otlp.url}}) as at:
            sent = {"traceparent": GIVEN, "tracestate": "a=1"}
            assert (await call(at, "POST", "/v1/chat/completions", json=ASK, headers=sent)).status_code == 200
            told = at.container.visits[0].headers
        assert set(otlp.paths) == {"/v1/traces"}
        request = next(span for span in otlp.spans() if span.name == "chat m")
        upstream = next(span for span in otlp.spans() if span.name == "upstream m")
    _, trace_id, above, _ = GIVEN.split("-")
    assert request.trace_id.hex() == upstream.trace_id.hex() == trace_id
    assert request.parent_span_id.hex() == above and upstream.parent_span_id == request.span_id
    assert told["traceparent"] == f"00-{trace_id}-{upstream.span_id.hex()}-01"
    assert told["tracestate"] == "a=1"
    [service] = [
        each.value.string_value
        for each in otlp.got[0].resource_spans[0].resource.attributes
        if each.key == "service.name"
    ]
    assert service == "modal-gateway"
    assert "hello" not in str(otlp.got)


async def test_embeddings_have_a_span_of_their_own_kind() -> None:
    async def embed(visit: Visit) -> None:
        await visit.answer({"embeddings": [[0.1, 0.2]], "usage": {"prompt_tokens": 3}})

    with receiver() as otlp:
        async with house(embed, {"tracing": {"endpoint": otlp.url, "content": True}}) as at:
            asked = {"model": "m", "input": "hi"}
            assert (await call(at, "POST", "/v1/embeddings", json=asked)).status_code == 200
        assert {span.name for span in otlp.spans()} == {"embeddings m", "upstream m"}


async def test_a_receiver_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.tracing.END", 0.1)
    async with house(answer, {"tracing": {"endpoint": "http://127.0.0.1:9"}}) as at:
        assert (await call(at, "POST", "/v1/chat/completions", json=ASK)).status_code == 200
