"""What a client tells of its request in headers, and what it is told beside its answer.

Rule: headers hold what is known when they are sent; the rest is told where a stream tells its usage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, get_args

from gateway.core.errors import BadRequest, GatewayError, Internal, ShuttingDown
from gateway.routing.attempts import Cold
from gateway.routing.routes import Deployment
from gateway.serve.job import Job

MAX_NAME = 128  # characters of the name that a client gives its request
COLD = b"x-gateway-cold"  # request header: wait | fallback | fail


def cold(head: Mapping[bytes, bytes], deployment: Deployment) -> Cold:
    """What this request does where no container is ready: as its header says, else as its model's entry."""
    asked = head.get(COLD, b"").decode("latin-1")
    if not asked:
        return deployment.cold
    if asked not in get_args(Cold):
        message = f"x-gateway-cold must be one of {', '.join(get_args(Cold))}."
        raise BadRequest(message, param="x-gateway-cold", code="invalid_value")
    return asked  # type: ignore[return-value]


def named(head: Mapping[bytes, bytes]) -> str | None:
    """What the client calls its request, if that can be kept: ``x-client-request-id``, as OpenAI has it."""
    given = head.get(b"x-client-request-id", b"").decode("latin-1")
    return given if given and len(given) <= MAX_NAME and given.isascii() and given.isprintable() else None


def told(error: BaseException) -> GatewayError:
    """What a client is told of ``error``."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, asyncio.CancelledError):  # a client that left is a ClientGone, so this is the server
        return ShuttingDown("The gateway is shutting down.", headers={"connection": "close"})
    return Internal("Something went wrong in the gateway; its log has the details.")


def extension(job: Job) -> dict[str, Any]:
    """What the usage chunk of a stream says beyond OpenAI's fields: it was not known with the headers."""
    ignored = job.ignored()
    told: dict[str, Any] = {"usage": job.usage().source, "ignored": ignored, "json": job.json_verdict()}
    told |= spent(job)
    return {name: value for name, value in told.items() if value}


def spent(job: Job) -> dict[str, float]:
    """What the request took: milliseconds of containers and dollars, where those are counted."""
    gpu, cost = job.gpu(), job.cost()
    took = {} if gpu is None else {"gpu_ms": round(gpu / 1e6, 3)}
    return took if cost is None else {**took, "cost": cost / 1e9}


def afterwards(job: Job) -> dict[str, str]:
    """What is known about a whole answer beside ``headers``, once it is complete."""
    told = {"x-gateway-usage": job.usage().source, **json_verdict(job)}
    gpu, cost = job.gpu(), job.cost()
    if gpu is not None:
        told["x-gateway-gpu-ms"] = f"{gpu / 1e6:.3f}"
    if cost is not None:
        told["x-gateway-cost"] = f"{cost / 1e9:.9f}"
    return told


def json_verdict(job: Job) -> dict[str, str]:
    """How far the JSON of a whole answer can be relied on, as a header."""
    verdict = job.json_verdict()
    return {"x-gateway-json": verdict} if verdict else {}


def headers(job: Job) -> dict[str, str]:
    """What is known about the answer when its headers are sent."""
    visit = job.visits[0]
    headers: dict[str, str] = {"x-gateway-upstream-state": visit.state}
    if visit.held:
        headers["x-gateway-queue-ms"] = f"{visit.queued * 1000:.0f}"
    if visit.booted:
        headers["x-gateway-boot-ms"] = f"{visit.booted * 1000:.0f}"
    if ignored := job.ignored():
        headers["x-gateway-ignored"] = ", ".join(ignored)
    if job.lease is not None:
        headers.update(job.lease.headers)
    if neutralised := job.calls[0].notes.neutralised:
        headers["x-gateway-neutralised"] = str(neutralised)
    return headers
