"""Which model a name means, and which of its upstreams goes first."""

from contextlib import suppress

import pytest

from gateway.auth import ANYONE, Caller
from gateway.core.call import PromptCall
from gateway.core.errors import GatewayError, ModelNotFound, NoContainer, UpstreamError, UpstreamUnavailable
from gateway.routing.attempts import Attempts
from gateway.routing.circuit import FAILURES
from gateway.routing.routes import Routes
from gateway.routing.target import Target
from gateway.routing.visit import Bounds, Visit
from tests.serve.house import Scripted, deployed

CALL = PromptCall("hi", {})
ELSEWHERE = UpstreamError("elsewhere", retry="elsewhere")


# --- names ---


def test_a_caller_hears_of_the_name_that_was_asked_for_and_of_no_other() -> None:
    models = [deployed(Scripted(name), name=name) for name in ("secret", "open-1")]
    routes = Routes(models, "secret")
    caller = Caller("some", ("open*",))
    for asked in ("junk", "secret", "secrets", "open-2"):
        with pytest.raises(ModelNotFound) as caught:
            routes.find(asked, caller)
        assert f"`{asked}`" in caught.value.message
        assert "secret" not in caught.value.message.replace(f"`{asked}`", "")
    with pytest.raises(GatewayError) as without:
        routes.find(None, caller)
    assert (without.value.param, without.value.status) == ("model", 400)
    assert "secret" not in without.value.message
    assert routes.find("open-1", caller) is models[1]
    assert routes.find("junk", ANYONE) is routes.find(None, ANYONE) is models[0]


# --- order ---


def order(routes: Routes, name: str = "m") -> list[str]:
    return [each.name for each in routes.in_turn(routes.deployments[name])]


def test_round_robin_begins_with_the_next_upstream_each_time() -> None:
    three = [Scripted(name) for name in "abc"]
    routes = Routes([deployed(*three, balance="round_robin")])
    turns = [order(routes) for _ in range(4)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


async def test_the_upstream_with_the_fewest_calls_goes_first() -> None:
    model = deployed(Scripted("a"), Scripted("b"), Scripted("c"), balance="least_pending")
    routes = Routes([model])
    assert [order(routes)[0] for _ in range(3)] == ["a", "b", "c"]  # equally busy: in turn
    held = [model.upstreams[index].events(CALL, Visit()) for index in (0, 0, 2)]
    for events in held:
        await anext(events)
    assert [order(routes) for _ in range(3)] == [["b", "c", "a"]] * 3
    for events in held:
        await events.aclose()


def test_fallback_models_follow_in_order_if_the_caller_may_call_them() -> None:
    models = [
        deployed(Scripted("m0"), Scripted("m1"), fallback=("x", "y"), balance="round_robin"),
        deployed(Scripted("x0"), name="x"),
        deployed(Scripted("y0"), name="y"),
    ]
    routes = Routes(models)

    def names(caller: Caller) -> list[str]:
        attempts = Attempts(routes, models[0], caller, "wait", 0.0)
        return [attempts.current.upstream.name, *(each.upstream.name for each in attempts.after(ELSEWHERE))]

    assert names(ANYONE) == ["m0", "m1", "x0", "y0"]
    assert names(Caller("some", ("m", "y"))) == ["m1", "m0", "y0"]


async def called(target: Target) -> None:
    """Let this upstream meet a call, whatever becomes of it."""
    with suppress(GatewayError):
        async for _ in target.events(CALL, Visit(patient=False)):
            pass


async def test_one_that_is_ready_goes_before_one_that_must_boot_and_one_that_fails_goes_last() -> None:
    fates = {
        "stopped": UpstreamUnavailable("x", code="upstream_stopped"),
        "booting": NoContainer("x", retry="elsewhere"),
        "failing": UpstreamError("x", retry="elsewhere"),
    }
    upstreams = [*(Scripted(name, [error]) for name, error in fates.items()), Scripted("warm")]
    model = deployed(*upstreams, Scripted("new"), balance="round_robin")
    routes = Routes([model])
    for target in model.upstreams[:-1]:
        for _ in range(FAILURES):
            await called(target)
    for _ in range(5):
        found = order(routes)
        assert set(found[:2]) == {"warm", "new"}
        assert found[2:] == ["booting", "stopped", "failing"]


async def test_one_that_is_full_goes_behind_one_that_has_room() -> None:
    busy, free = Scripted("busy"), Scripted("free")
    model = deployed(busy, free, balance="round_robin", bounds=Bounds(1, 8, 60.0))
    held = model.upstreams[0].events(CALL, Visit())
    await anext(held)
    assert [order(Routes([model]))[0] for _ in range(3)] == ["free"] * 3
    await held.aclose()
