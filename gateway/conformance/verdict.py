"""What a check found: one word and one line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    OK = "ok"
    UNSUPPORTED = "not supported"  # optional in the contract; the gateway does without
    INCONCLUSIVE = "inconclusive"  # the model did not say what would have shown it
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Verdict:
    result: Result
    why: str


def ok(why: str) -> Verdict:
    return Verdict(Result.OK, why)


def unsupported(why: str) -> Verdict:
    return Verdict(Result.UNSUPPORTED, why)


def inconclusive(why: str) -> Verdict:
    return Verdict(Result.INCONCLUSIVE, why)


def wrong(why: str) -> Verdict:
    return Verdict(Result.WRONG, why)
