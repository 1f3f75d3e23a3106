"""What a request may ask for in its header: ``x-simulate: boot=2.5;fault=crash``.

Rule: one fault a request. A name that is not known is an error that lists those that are. Where a fault
acts is data here; that it acts is for ``edge.py`` and ``call.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gateway.core import modal
from gateway.simulate.options import seconds

HEADER = b"x-simulate"
WORKSPACE = "ac-simulated"  # whose name the text about a disabled workspace holds
PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"

Place: TypeAlias = Literal["edge", "container", "redirect", "answer", "boot"]
"""Where it acts: before any container, in place of the app, on a 303, while the app answers, at a boot."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer that is not the app's."""

    status: int
    text: str = ""
    kind: str = "text/plain; charset=utf-8"


@dataclass(slots=True, frozen=True)
class Fault:
    """``about``: what the client sees. ``answer``: what is sent in place of the app's, if anything is."""

    place: Place
    about: str
    answer: Answer | None = None


FAULTS: Mapping[str, Fault] = {
    "missing-credentials": Fault(
        "edge", "401, no proxy token was sent", Answer(401, modal.MISSING_CREDENTIALS)
    ),
    "invalid-credentials": Fault(
        "edge", "401, the proxy token is wrong", Answer(401, modal.INVALID_CREDENTIALS)
    ),
    "stopped": Fault("edge", "404, the app is stopped", Answer(404, modal.STOPPED)),
    "unknown": Fault("edge", "404, the address is wrong", Answer(404, modal.UNKNOWN)),
    "disabled": Fault(
        "edge", "404, the workspace is disabled", Answer(404, modal.DISABLED.format(workspace=WORKSPACE))
    ),
    "expired": Fault("edge", "408, the request got lost", Answer(408, modal.LOST)),
    "limited": Fault("edge", "429 without a body", Answer(modal.LIMITED)),
    "not-ready": Fault("edge", "503 without a body, and no boot", Answer(modal.NOT_READY)),
    "html": Fault("edge", "502 with a page of HTML", Answer(502, PAGE, "text/html")),
    "reset": Fault("edge", "the connection is reset without an answer"),
    "timed-out": Fault("container", "500, the function's time was over", Answer(500, modal.TIMED_OUT)),
    "terminated": Fault("container", "500, the function was killed", Answer(500, modal.TERMINATED)),
    "lost-track": Fault("container", "500, Modal lost the input", Answer(500, modal.LOST_TRACK)),
    "raised": Fault(
        "container",
        "500, the function raised before the app answered",
        Answer(500, modal.RAISED.format(error="RuntimeError('simulated')")),
    ),
    "error": Fault(
        "container", "500, the app raised: its own words, not Modal's", Answer(500, "Internal Server Error")
    ),
    "loop": Fault("redirect", "303 after every edge timeout, for ever; no container starts"),
    "relative": Fault("redirect", "a 303 whose `Location` is relative"),
    "elsewhere": Fault("redirect", "a 303 to another host"),
    "repoll": Fault("redirect", "408 where the result is asked for the first time"),
    "crash-early": Fault("answer", "the container dies before the app is asked, once"),
    "crash": Fault("answer", "the container dies after the first bytes of the answer"),
    "cut": Fault("answer", "the answer is cut after its first bytes; the container lives on"),
    "stall": Fault("answer", "silence after the first bytes of the answer"),
    "boot-fails": Fault("boot", "the container that this request starts fails to boot, once"),
    "boot-never": Fault("boot", "every container that this request starts fails to boot"),
}
"""Every fault by its name."""

BOOT_FAILURES: Mapping[str, int] = {"boot-fails": 1, "boot-never": 1 << 30}


@dataclass(slots=True, frozen=True)
class Wish:
    """What one request asks for. ``boot``: seconds; None leaves it to the options."""

    boot: float | None = None
    fault: str | None = None

    @property
    def boot_failures(self) -> int:
        return BOOT_FAILURES.get(self.fault or "", 0)

    def at(self, place: Place) -> Fault | None:
        """Its fault, if that acts here."""
        fault = FAULTS[self.fault] if self.fault else None
        return fault if fault is not None and fault.place == place else None


NOTHING = Wish()


class Misspelt(ValueError):
    """The header is not what it should be; the message is for the client."""


def wish(header: str) -> Wish:
    """What the header asks for. Raises ``Misspelt``."""
    given: dict[str, str] = {}
    for part in filter(None, map(str.strip, header.split(";"))):
        name, _, value = part.partition("=")
        given[name.strip()] = value.strip()
    if unknown := sorted(set(given) - {"boot", "fault"}):
        raise Misspelt(f"x-simulate knows boot=SECONDS and fault=NAME, not {unknown[0]!r}")
    fault = given.get("fault")
    if fault is not None and fault not in FAULTS:
        raise Misspelt(f"x-simulate knows no fault {fault!r}; there are: {', '.join(sorted(FAULTS))}")
    return Wish(_boot(given.get("boot")), fault)


def _boot(text: str | None) -> float | None:
    try:
        return None if text is None else seconds(text)
    except ValueError:
        raise Misspelt(f"x-simulate: boot={text!r} is not a number of seconds from 0 to 86400") from None
