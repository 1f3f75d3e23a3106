"""Measure the transformers engine on a GPU: ``python -m tests.bench.gpu [--size 1b|8b] [--streams 64]``.

Makes a model of a known shape with random weights in memory and a tokenizer without training data, so that it
needs no network. Prints one JSON object: tokens per second of the library called directly (``generate`` on a
padded batch, and its continuous batching), of the engine alone, and of the engine behind the contract app on
a real socket, with the time to the first token and the largest gap between two pieces.

Rule: the same prompts and the same number of new tokens for all, none of them ends early.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "1b": {  # Llama 3.2 1B
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "8b": {  # Llama 3.1 8B
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}  # fmt: skip
VOCABULARY = 128_256
MOST = 4096  # tokens of context


def tokenizer() -> Any:
    """Byte-level, one letter a byte, and made-up words for the rest: every id is some text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {letter: at for at, letter in enumerate(letters)}
    for number in range(len(words), VOCABULARY):
        words[f"Ġw{number}"] = number
    inner = Tokenizer(models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=MOST, pad_token="!")


def model(size: str, device: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **SHAPES[size], vocab_size=VOCABULARY, max_position_embeddings=MOST, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(1)
    with torch.device(device):
        made = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    made.generation_config.eos_token_id = None
    return made.eval()


def prompts(streams: int, length: int) -> list[str]:
    """One letter is one token; each differs from its first letter on, so that no prefix is shared."""
    return [f"{n:04d}" + "abcdefgh" * (length // 8) for n in range(streams)]


# --- the library by itself ---


def padded(made: Any, ids: list[list[int]], new: int) -> dict[str, float]:
    import torch

    batch = torch.tensor(ids, device=made.device)

    def run(tokens: int) -> None:
        with torch.inference_mode():
            made.generate(
                batch, attention_mask=torch.ones_like(batch), max_new_tokens=tokens, do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip

    run(8)
    return {"tokens_per_second": len(ids) * new / timed(lambda: run(new), made)}


def continuous(made: Any, ids: list[list[int]], new: int) -> dict[str, float | str]:
    from transformers import GenerationConfig

    def run(tokens: int) -> int:
        config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        answers = made.generate_batch(ids, generation_config=config, progress_bar=False)
        return sum(len(one.generated_tokens) for one in answers.values())

    before = made.config._attn_implementation
    try:
        run(8)
        counted: list[int] = []
        seconds = timed(lambda: counted.append(run(new)), made)
    except Exception as exc:  # noqa: BLE001 - it has needs of its own; the other figures are worth having
        return {"failed": f"{type(exc).__name__}: {exc}"[:300]}
    finally:
        made.set_attn_implementation(before)
    return {"tokens_per_second": counted[0] / seconds}


def timed(run: Callable[[], object], made: Any) -> float:
    import torch

    if made.device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    if made.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


# --- the engine ---


def figures(seconds: float, firsts: list[float], gaps: list[float], tokens: int) -> dict[str, float]:
    return {
        "tokens_per_second": tokens / seconds,
        "first_token_median_ms": statistics.median(firsts) * 1000,
        "first_token_slowest_ms": max(firsts) * 1000,
        "longest_gap_ms": max(gaps) * 1000,
    }


async def alone(engine: Any, texts: list[str], new: int, **fields: Any) -> dict[str, float]:
    from modal_backend.engine import Done, Request

    firsts: list[float] = []
    gaps: list[float] = []
    tokens = 0
    begun = time.perf_counter()

    async def one(text: str) -> None:
        nonlocal tokens
        last = begun
        async for item in engine.generate(Request(prompt=text, max_tokens=new, **fields)):
            now = time.perf_counter()
            (firsts if last == begun else gaps).append(now - last)
            last = now
            if isinstance(item, Done) and item.usage:
                tokens += item.usage.completion_tokens

    async with asyncio.TaskGroup() as group:
        for text in texts:
            group.create_task(one(text))
    return figures(time.perf_counter() - begun, firsts, gaps, tokens)


CLIENT = '''
import json, socket, selectors, sys, time
asked = json.load(sys.stdin)
bodies = [json.dumps(fields).encode() for fields in asked["bodies"]]
choose = selectors.DefaultSelector()
begun = time.perf_counter()
for body in bodies:
    made = socket.create_connection((asked["host"], asked["port"]))
    made.sendall(b"POST / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    choose.register(made, selectors.EVENT_READ, {"last": begun, "first": None, "tail": b"", "gap": 0.0})
firsts, gaps, tokens, done = [], [], 0, 0
while done < len(bodies):
    for key, _ in choose.select(60):
        state, read = key.data, key.fileobj.recv(1 << 16)
        now = time.perf_counter()
        if b"data: " in read:
            if state["first"] is None:
                state["first"] = now - begun
            else:
                state["gap"] = max(state["gap"], now - state["last"])
            state["last"] = now
        state["tail"] = (state["tail"] + read)[-400:]
        if b"[DONE]" in state["tail"] or not read:
            at = state["tail"].index(b'"completion_tokens":') + 20
            tokens += int(state["tail"][at:].split(b"}")[0])
            firsts.append(state["first"]); gaps.append(state["gap"])
            done += 1
            choose.unregister(key.fileobj); key.fileobj.close()
seconds = time.perf_counter() - begun
print(json.dumps({"seconds": seconds, "firsts": firsts, "gaps": gaps, "tokens": tokens}))
'''
"""A process of its own, so that the load does not take the server's time."""


async def behind_the_contract(engine: Any, texts: list[str], new: int, **fields: Any) -> dict[str, float]:
    import uvicorn

    from modal_backend.__main__ import listen
    from modal_backend.contract import contract_app

    config = uvicorn.Config(contract_app(engine), lifespan="off", ws="none", log_config=None)
    server = uvicorn.Server(config)
    listening = listen("127.0.0.1", 0)
    listening.listen(1024)
    host, port = listening.getsockname()
    bodies = [{"prompt": text, "max_tokens": new, "stream": True, **fields} for text in texts]
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[listening]))
        asked = json.dumps({"host": host, "port": port, "bodies": bodies})
        client = [sys.executable, "-c", CLIENT]
        ended = await asyncio.to_thread(
            subprocess.run, client, input=asked, stdout=subprocess.PIPE, text=True, check=True
        )
        server.should_exit = True
        await serving
    found = json.loads(ended.stdout)
    return figures(found["seconds"], found["firsts"], found["gaps"], found["tokens"])


@contextmanager
def running(made: Any, tokens: Any, streams: int, context: int) -> Iterator[Any]:
    from modal_backend.engines.transformers_engine import Options, TransformersEngine
    from modal_backend.engines.transformers_engine.loading import ready

    options = Options(model="random weights", max_batch=streams, context_length=context)
    engine = TransformersEngine(ready(made, tokens, options), options)
    try:
        yield engine
    finally:
        asyncio.run(engine.close())


async def measured(engine: Any, texts: list[str], new: int) -> dict[str, Any]:
    sampled = {"temperature": 0.8, "top_p": 0.95, "seed": 1}
    await alone(engine, texts, 8, temperature=0)
    await alone(engine, texts, 8, **sampled)
    return {
        "engine_greedy": await alone(engine, texts, new, temperature=0),
        "engine_sampled": await alone(engine, texts, new, **sampled),
        "contract_greedy": await behind_the_contract(engine, texts, new, temperature=0),
        "contract_sampled": await behind_the_contract(engine, texts, new, **sampled),
    }


def main() -> None:
    import torch
    import transformers

    parser = argparse.ArgumentParser("python -m tests.bench.gpu")
    parser.add_argument("--size", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens of each answer")
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made, tokens = model(chosen.size, device), tokenizer()
    texts = prompts(chosen.streams, chosen.prompt)
    ids = [tokens.encode(text, add_special_tokens=False) for text in texts]
    found: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **vars(chosen),
        "prompt_tokens": len(ids[0]),
    }
    with running(made, tokens, chosen.streams, len(ids[0]) + chosen.new + 8) as engine:
        found.update(asyncio.run(measured(engine, texts, chosen.new)))
        found["memory"] = type(engine._loaded.memory).__name__
    del engine
    if device == "cuda":
        torch.cuda.empty_cache()
    found["library_generate"] = padded(made, ids, chosen.new)
    found["library_continuous_batching"] = continuous(made, ids, chosen.new)
    engines_own = found["engine_greedy"]["tokens_per_second"]
    found["contract_share"] = found["contract_greedy"]["tokens_per_second"] / engines_own
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
