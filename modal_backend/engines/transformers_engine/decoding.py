"""The decode loop: one thread that owns the model and carries all running answers a token further each step.

Rule: one step is always in flight. While the accelerator computes a step, the loop reads the one before, so
that an end that is seen in the tokens costs one wasted token, and a cancelled answer's slot is free after at
most two steps. A guided answer must know its token first, so with one the loop waits for each step.
Out of memory fails the answers it met; any other failure is the end of the loop, and all answers fail.
Knows nothing about HTTP or asyncio: what it makes goes to ``Answering.send``, in batches.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from modal_backend.engine import (
    Alternative,
    Done,
    EngineDead,
    EngineError,
    Logprob,
    OutOfMemory,
    Piece,
    Request,
    Usage,
)
from modal_backend.engines.tokens import Spelling, Tokenizer
from modal_backend.engines.transformers_engine.chances import Chances, Model, Read
from modal_backend.engines.transformers_engine.guides import Guide
from modal_backend.engines.transformers_engine.memory import Memory
from modal_backend.engines.transformers_engine.sampling import Edits, Sampling, choose, edits, sampling

FILLED = 8192  # prompt tokens that are taken in between two steps, so that running answers go on
CLOSED = "the engine was closed"

Item = Piece | Done | EngineError
Send = Callable[[Sequence[tuple["Job", Item]]], None]

log = logging.getLogger("modal_backend")


@dataclass(eq=False, slots=True)
class Job:
    """One answer: what was asked, and how far it is. The loop's thread writes all but ``cancelled``."""

    request: Request
    prompt: list[int]
    most: int
    """Tokens that the answer may have."""
    guide: Guide | None
    receiver: Any
    cancelled: bool = False
    slot: int = -1
    launched: int = 0
    """Tokens asked of the model so far; ``said`` are those that were read."""
    said: int = 0
    over: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    edits: Edits | None = None
    random: random.Random = field(default_factory=random.Random)
    spelling: Spelling | None = None

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt), self.said)


@dataclass(frozen=True, slots=True)
class _Step:
    """What the accelerator was asked: one token for each of ``jobs``. Copied while the next is computed."""

    jobs: tuple[Job, ...]
    ids: torch.Tensor
    chances: Chances | None
    ready: Any  # a CUDA event, None where nothing has to be waited for

    @classmethod
    def of(cls, jobs: Sequence[Job], ids: torch.Tensor, chances: Chances | None) -> _Step:
        if ids.device.type != "cuda":
            return cls(tuple(jobs), ids, chances, None)
        copied = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
        copied.copy_(ids, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return cls(tuple(jobs), copied, chances, ready)

    def tokens(self) -> list[int]:
        if self.ready is not None:
            self.ready.synchronize()
        return self.ids.tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is true of the model, for every answer."""

    tokenizer: Tokenizer
    ends: frozenset[int]
    defaults: Mapping[str, Any]
    """What the model's ``generation_config`` says of sampling."""


class Decoding:
    """Runs until ``stop``. ``submit`` and ``Job.cancelled`` are for other threads, the rest is its own."""

    def __init__(self, memory: Memory, rules: Rules, send: Send) -> None:
        self._memory, self._rules, self._send = memory, rules, send
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._free = list(range(memory.count))
        self._flying: deque[_Step] = deque()
        self._out: list[tuple[Job, Item]] = []
        self._wake = threading.Condition()
        self._stopping = False
        self.fault: str | None = None
        self.steps = 0
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, job: Job) -> None:
        with self._wake:
            if self.fault or self._stopping:
                raise EngineDead(self.fault or CLOSED)
            self._waiting.append(job)
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        with self._wake:
            job.cancelled = True
            self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    # --- the thread ---

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._pause():
                    self._turn()
        except BaseException as exc:  # the boundary: after this nobody answers any more
            log.critical("the decode loop has ended", exc_info=exc)
            with self._wake:
                self.fault = f"the model failed ({type(exc).__name__}); the container's log says more"
        with self._wake:
            left = [*self._running, *self._waiting]
        self._fail(left, EngineDead(self.fault or CLOSED))

    def _pause(self) -> bool:
        """Wait for work; false when there will be none."""
        with self._wake:
            while not (self._stopping or self._waiting or self._running or self._flying):
                self._wake.wait()
            return not self._stopping

    def _turn(self) -> None:
        """Take in what waits, launch a step, and read the step before it."""
        try:
            self._drop_cancelled()
            self._take_in()
            if any(job.guide for job in self._running):
                self._read_all()
            going = [job for job in self._running if job.launched < job.most]
            if going:
                self._launch(going)
            if not going:
                self._read()
            while len(self._flying) > 1:  # prompts taken in are one more beside the step
                self._read()
        except torch.cuda.OutOfMemoryError:
            self._flying.clear()
            self._fail(self._running, OutOfMemory("this request did not fit into the accelerator's memory"))
            torch.cuda.empty_cache()
        self._deliver()

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._running if job.cancelled]:
            self._release(job)
        with self._wake:  # others append while this looks through it
            if any(job.cancelled for job in self._waiting):
                self._waiting = deque(job for job in self._waiting if not job.cancelled)

    def _take_in(self) -> None:
        """Fill free slots with what waits, at most ``FILLED`` padded tokens at a time but at least one."""
        group: list[Job] = []
        widest = 0
        while self._waiting and self._free:
            widest = max(widest, len(self._waiting[0].prompt))
            if group and widest * (len(group) + 1) > FILLED:
                break
            job = self._waiting.popleft()
            job.slot = min(self._free)
            self._free.remove(job.slot)
            group.append(job)
        if not group:
            return
        try:
            logits = self._memory.fill([job.slot for job in group], [job.prompt for job in group])
            for job, row in zip(group, logits, strict=True):
                self._begin(job, row)
            self._running += group
            self._choose(group, logits)
        except torch.cuda.OutOfMemoryError:
            self._fail(group, OutOfMemory("this prompt did not fit into the accelerator's memory"))
            torch.cuda.empty_cache()

    def _begin(self, job: Job, logits: torch.Tensor) -> None:
        request, defaults = job.request, self._rules.defaults
        job.sampling = sampling(request, defaults)
        job.edits = edits(request, defaults, job.prompt, logits)
        job.random = random.Random(request.seed)
        job.spelling = Spelling(self._rules.tokenizer)

    def _launch(self, jobs: list[Job]) -> None:
        self.steps += 1
        longest = max(len(job.prompt) + job.launched for job in jobs)
        self._choose(jobs, self._memory.step([job.slot for job in jobs], longest))

    def _choose(self, jobs: list[Job], logits: torch.Tensor) -> None:
        """Sample a token for each job, make it the slot's next one, and send it on its way to be read."""
        raw = Model.of([job.request.logprobs for job in jobs], logits)
        for job, row in zip(jobs, logits, strict=True):
            if job.edits:
                job.edits.apply(row)
            if job.guide:
                job.guide.apply(row)
        ids = choose(logits, [job.sampling for job in jobs], [job.random.random() for job in jobs])
        self._memory.put([job.slot for job in jobs], ids)
        self._flying.append(_Step.of(jobs, ids, raw.at(ids) if raw else None))
        for at, job in enumerate(jobs):
            job.launched += 1
            if job.edits:
                job.edits.note(ids[at : at + 1])

    def _read_all(self) -> None:
        while self._flying:
            self._read()

    def _read(self) -> None:
        """Take the oldest step's tokens to their answers."""
        if not self._flying:
            return
        step = self._flying.popleft()
        tokens = step.tokens()
        chances = step.chances.read() if step.chances else {}
        for at, (job, token) in enumerate(zip(step.jobs, tokens, strict=True)):
            if not (job.over or job.cancelled):
                self._say(job, token, chances.get(at))

    def _say(self, job: Job, token: int, chances: Read | None) -> None:
        job.said += 1
        ended = token in self._rules.ends or token in job.request.stop_token_ids
        try:
            complete = bool(job.guide and job.guide.take(token))
        except EngineError as error:
            self._fail([job], error)
            return
        spelling = job.spelling or Spelling(self._rules.tokenizer)
        text = "" if ended else spelling.add(token)
        reason = "stop" if ended or complete else "length" if job.said >= job.most else None
        if reason:
            text += spelling.end()
        logprobs = () if chances is None or ended else (self._logprob(token, chances),)
        if text or logprobs:
            self._out.append((job, Piece(text, logprobs, job.usage)))
        if reason:
            self._out.append((job, Done(reason, job.usage)))
            self._release(job)

    def _logprob(self, token: int, chances: Read) -> Logprob:
        chosen, others = chances
        named = self._rules.tokenizer.token
        text, own = named(token)
        top = [(named(other), value) for other, value in others]
        return Logprob(text, chosen, own, tuple(Alternative(name, value, raw) for (name, raw), value in top))

    def _release(self, job: Job) -> None:
        job.over = True
        self._memory.free(job.slot)
        self._free.append(job.slot)
        self._running.remove(job)

    def _fail(self, jobs: Iterable[Job], error: EngineError) -> None:
        for job in list(jobs):
            self._out.append((job, error))
            job.over = True
            if job in self._running:
                self._running.remove(job)
            if job.slot >= 0 and job.slot not in self._free:
                self._free.append(job.slot)
                self._memory.free(job.slot)
        self._deliver()

    def _deliver(self) -> None:
        if self._out:
            self._send(self._out)
            self._out = []
