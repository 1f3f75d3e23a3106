"""A vLLM without a model: its modules made from the recorded signatures, its answers from dice.

Rule: what the record does not have, is refused: a keyword, a module, a name. Tokens follow from prompt, seed
and place alone, so that the same question has the same answer. It behaves as the source of the recorded
version reads; what it cannot show is whether that version does.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import enum
import functools
import inspect
import json
import random
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tests.backend.engines.record_vllm import RECORD

RECORDED: Mapping[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
NAMES: Mapping[str, Any] = RECORDED["names"]
LLM = "vllm.v1.engine.async_llm:AsyncLLM"
GUIDED = {"json": '{"a":1}', "regex": "abc", "grammar": "((7))"}
"""What a guided answer is, whatever it should be."""


def default(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None  # an expression of vLLM's own


def signature(entry: Mapping[str, Any]) -> inspect.Signature:
    only = entry.get("keyword_only", ())
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY if name in only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if text is None else default(text),
            )
            for name, text in sorted(entry["parameters"].items(), key=lambda item: item[0] in only)
        ]
    )


def value(wanted: str) -> Callable[[type], type]:
    """A class that is made from what the record has, and holds it as attributes."""
    accepted = signature(NAMES[wanted])

    def decorate(made: type) -> type:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            bound = accepted.bind(*args, **kwargs)
            bound.apply_defaults()
            vars(self).update(bound.arguments)
            getattr(self, "check", lambda: None)()

        made.__init__ = init  # type: ignore[misc]
        return made

    return decorate


def member(wanted: str) -> Callable[[Any], Any]:
    """A method that takes what the record of ``CLASS.METHOD`` has."""
    owner, name = wanted.rsplit(".", 1)
    accepted = signature(NAMES[owner]["members"][name])

    def decorate(method: Any) -> Any:
        @functools.wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            return method(self, *accepted.bind(*args, **kwargs).args, **accepted.bind(*args, **kwargs).kwargs)

        return checked

    return decorate


class RequestOutputKind(enum.Enum):
    DELTA = 1


@value("vllm.sampling_params:StructuredOutputsParams")
class StructuredOutputsParams:
    def check(self) -> None:
        given = {name: vars(self)[name] for name in GUIDED if vars(self)[name] is not None}
        [(self.kind, guide)] = given.items()
        if self.kind == "regex":
            re.compile(guide)
        if self.kind == "grammar" and guide.count("(") != guide.count(")"):
            raise ValueError("Grammar error: unclosed")
        if self.kind == "json" and guide.get("type") not in (None, "object", "array", "string", "integer"):
            raise ValueError("Grammar error: unknown type")


@value("vllm.sampling_params:SamplingParams")
class SamplingParams:
    def check(self) -> None:
        given = vars(self)
        if not 0 < given["top_p"] <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {given['top_p']}.")
        if given["seed"] == -1:
            given["seed"] = None


@value("vllm.engine.arg_utils:AsyncEngineArgs")
class AsyncEngineArgs:
    pass


# `dataclasses.fields` of the real one has all parameters.
AsyncEngineArgs.__dataclass_fields__ = dataclasses.make_dataclass(  # type: ignore[attr-defined]
    "Fields", [(name, Any, None) for name in NAMES["vllm.engine.arg_utils:AsyncEngineArgs"]["parameters"]]
).__dataclass_fields__


@value("vllm.config:StructuredOutputsConfig")
class StructuredOutputsConfig:
    pass


@value("vllm.lora.request:LoRARequest")
class LoRARequest:
    pass


@value("vllm.logprobs:Logprob")
class Logprob:
    pass


@value("vllm.outputs:CompletionOutput")
class CompletionOutput:
    pass


@value("vllm.outputs:RequestOutput")
class RequestOutput:
    pass


class EngineDeadError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


def tokens_prompt(**given: Any) -> dict[str, Any]:
    """A typed dictionary is a plain one when it is made."""
    keys = NAMES["vllm.inputs:TokensPrompt"]["parameters"]
    signature({"parameters": keys, "keyword_only": list(keys)}).bind(**given)
    return given


def fetch_image(image_url: str) -> str:
    kind, _, data = image_url.partition(";base64,")
    if not data:
        raise NotImplementedError("Only base64 data URLs are supported for now.")
    return f"{kind} of {len(data)}"


class ModelConfig:
    """Only what the record has of it."""

    def __init__(self, length: int, *, images: bool, defaults: Mapping[str, Any]) -> None:
        self.max_model_len = length
        self.is_multimodal_model = images
        self._defaults = defaults

    @member("vllm.config:ModelConfig.get_diff_sampling_param")
    def get_diff_sampling_param(self) -> dict[str, Any]:
        return dict(self._defaults)


class AsyncLLM:
    """Public names are those of the record; what only tests use is in ``seen`` and ``script``."""

    def __init__(self, args: Any) -> None:
        from transformers import AutoTokenizer

        self.script = Script()
        self.seen = Seen(args)
        self._tokenizer = AutoTokenizer.from_pretrained(args.model)
        extra = args.additional_config or {}
        self.model_config = ModelConfig(
            args.max_model_len or 512, images=bool(extra.get("images")), defaults=extra.get("defaults", {})
        )

    @classmethod
    @member(f"{LLM}.from_engine_args")
    def from_engine_args(cls, engine_args: Any) -> AsyncLLM:
        if (engine_args.additional_config or {}).get("broken"):
            raise RuntimeError("Engine core initialization failed.")
        return cls(engine_args)

    @property
    def errored(self) -> bool:
        return self.script.dead

    @member(f"{LLM}.get_tokenizer")
    def get_tokenizer(self) -> Any:
        return self._tokenizer

    @member(f"{LLM}.shutdown")
    def shutdown(self) -> None:
        self.seen.shut_down = True
        self.script.dead = True

    @member(f"{LLM}.add_lora")
    async def add_lora(self, lora_request: Any) -> bool:
        self.seen.loaded.append(lora_request.lora_name)
        if lora_request.lora_path == "broken":
            raise RuntimeError("Call to add_lora method failed: no such file")
        return True

    @member(f"{LLM}.abort")
    async def abort(self, request_id: str) -> None:
        self.seen.aborted.append(request_id)
        self.seen.running.discard(request_id)
        self.seen.changed.set()

    @member(f"{LLM}.generate")
    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, lora_request: Any = None
    ) -> AsyncGenerator[Any, None]:
        queued = False
        try:
            if self.script.dead:
                raise EngineDeadError
            self._check(prompt, sampling_params, lora_request)
            self.seen.asked.append((prompt, sampling_params, lora_request))
            self.seen.begin(request_id)
            await asyncio.sleep(0)  # whoever is cancelled here has no queue yet, and is not aborted
            queued = True
            for output in self._outputs(prompt, sampling_params, request_id):
                await self.script.step()
                yield output
            self.seen.running.discard(request_id)
        except (asyncio.CancelledError, GeneratorExit):
            if queued:
                await self.abort(request_id)
            raise
        except (EngineDeadError, ValueError):
            raise
        except Exception as exc:
            await self.abort(request_id)
            raise EngineGenerateError from exc

    def _check(self, prompt: Any, params: Any, lora: Any) -> None:
        size, most = len(prompt["prompt_token_ids"]), self.model_config.max_model_len
        size += 1000 * len(prompt.get("multi_modal_data", {}).get("image", ()))
        if size > most:
            raise ValueError(
                f"The decoder prompt (length {size}) is longer than the maximum model length of {most}. "
            )
        if lora is not None and not self.seen.args.enable_lora:
            raise ValueError(f"Got lora_request {lora} but LoRA is not enabled!")
        if outside := [token for token in params.logit_bias or () if token >= len(self._tokenizer)]:
            raise ValueError(f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids.")

    def _outputs(self, prompt: Any, params: Any, request_id: str) -> Iterable[Any]:
        """As its output processor makes them: deltas of ``script.burst`` tokens, text without loose ends."""
        ids = prompt["prompt_token_ids"]
        cached = self.seen.cached(ids)
        said: list[int] = []
        given = 0
        for chunk, reason in self._chunks(ids, params):
            said += chunk
            shown = said[:-1] if reason == "stop" else said
            text = self._tokenizer.decode(shown, skip_special_tokens=params.skip_special_tokens)
            ready = len(text) if reason else len(text) - text.endswith("\ufffd")
            made = CompletionOutput(
                index=0, text=text[given:ready], token_ids=chunk, cumulative_logprob=None,
                logprobs=None if params.logprobs is None else [self._chances(one, params) for one in chunk],
                finish_reason=reason,
            )  # fmt: skip
            given = max(given, ready)
            yield RequestOutput(
                request_id, None, ids, None, [made], reason is not None, num_cached_tokens=cached
            )

    def _chunks(self, ids: list[int], params: Any) -> Iterable[tuple[list[int], str | None]]:
        most = params.max_tokens or self.model_config.max_model_len - len(ids)
        tokens: list[int] = []
        for token in self._tokens(ids, params):
            tokens.append(token)
            most -= 1
            ended = token in (self._tokenizer.eos_token_id, *(params.stop_token_ids or ()))
            reason = "stop" if ended else "length" if not most else self.script.reason
            if reason or len(tokens) == self.script.burst:
                yield tokens, reason
                tokens = []
            if reason:
                return

    def _tokens(self, ids: list[int], params: Any) -> Iterable[int]:
        guide = params.structured_outputs
        forced = [token for token, bias in (params.logit_bias or {}).items() if bias >= 100]
        if guide is not None:
            yield from self._tokenizer.encode(GUIDED[guide.kind], add_special_tokens=False)
            yield self._tokenizer.eos_token_id
        greedy = params.temperature == 0 or params.top_k == 1
        seed = 0 if greedy else random.random() if params.seed is None else params.seed
        dice = random.Random(f"{ids} {seed}")
        special = set(self._tokenizer.all_special_ids)
        plain = [token for token in range(len(self._tokenizer)) if token not in special]
        while True:
            yield forced[0] if forced else dice.choice(plain)

    def _chances(self, token: int, params: Any) -> dict[int, Any]:
        """The chosen one first, then the likeliest, as the sampler leaves them."""
        likely = [(token + n) % len(self._tokenizer) for n in range(token % 2, token % 2 + params.logprobs)]
        chosen = Logprob(-0.5 if token % 2 == 0 else -9.0, 1, "?")
        others = {one: Logprob(-0.5 - n, n + 1, "?") for n, one in enumerate(likely)}
        return {token: chosen} | {one: chance for one, chance in others.items() if one != token}


class Script:
    """What is to happen."""

    def __init__(self) -> None:
        self.dead = False
        self.fails: Exception | None = None
        self.reason: str | None = None
        self.burst = 1  # tokens of one output
        self.permits: asyncio.Semaphore | None = None

    async def step(self) -> None:
        if self.permits is not None:
            await self.permits.acquire()
        await asyncio.sleep(0)
        if self.fails is not None:
            failure, self.fails = self.fails, None
            self.dead = isinstance(failure, EngineDeadError)
            raise failure


class Seen:
    """What did happen."""

    def __init__(self, args: Any) -> None:
        self.args = args
        self.asked: list[tuple[Any, Any, Any]] = []
        self.running: set[str] = set()
        self.aborted: list[str] = []
        self.changed = asyncio.Event()
        self.loaded: list[str] = []
        self.shut_down = False
        self._prompts: list[list[int]] = []

    def begin(self, name: str) -> None:
        self.running.add(name)
        self.changed.set()

    def cached(self, ids: list[int]) -> int:
        """Tokens of the longest beginning that an earlier prompt had, in blocks of 16."""
        longest = 0
        for earlier in self._prompts:
            same = next((n for n, (a, b) in enumerate(zip(ids, earlier, strict=False)) if a != b), len(ids))
            longest = max(longest, min(same, len(earlier)))
        self._prompts.append(ids)
        return longest // 16 * 16


IMITATED: Mapping[str, Any] = {
    "vllm.engine.arg_utils:AsyncEngineArgs": AsyncEngineArgs,
    "vllm.config:StructuredOutputsConfig": StructuredOutputsConfig,
    "vllm.config:ModelConfig": ModelConfig,
    LLM: AsyncLLM,
    "vllm.sampling_params:SamplingParams": SamplingParams,
    "vllm.sampling_params:StructuredOutputsParams": StructuredOutputsParams,
    "vllm.sampling_params:RequestOutputKind": RequestOutputKind,
    "vllm.lora.request:LoRARequest": LoRARequest,
    "vllm.inputs:TokensPrompt": tokens_prompt,
    "vllm.outputs:RequestOutput": RequestOutput,
    "vllm.outputs:CompletionOutput": CompletionOutput,
    "vllm.logprobs:Logprob": Logprob,
    "vllm.multimodal.utils:fetch_image": fetch_image,
    "vllm.utils.torch_utils:cuda_device_count_stateless": lambda: 0,
    "vllm.v1.engine.exceptions:EngineDeadError": EngineDeadError,
    "vllm.v1.engine.exceptions:EngineGenerateError": EngineGenerateError,
}


def install() -> None:
    """Make ``import vllm`` find the imitation, in this process."""
    for wanted, made in IMITATED.items():
        path, name = wanted.split(":")
        parts = path.split(".")
        for n in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:n]))
            module.__spec__ = ModuleSpec(module.__name__, None)
            sys.modules.setdefault(module.__name__, module)
        setattr(sys.modules[path], name, made)
    vars(sys.modules["vllm"])["__version__"] = RECORDED["version"]


def remove() -> None:
    """Forget it again, and the engine that was imported on it."""
    mine = ("vllm", "modal_backend.engines.vllm_engine")
    for name in [
        name for name in sys.modules if name in mine or name.startswith(tuple(f"{one}." for one in mine))
    ]:
        del sys.modules[name]
