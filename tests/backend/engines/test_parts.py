"""The parts of the transformers engine by themselves: choosing, spelling, memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from modal_backend.engines.tokens import Spelling, Tokenizer
from modal_backend.engines.transformers_engine.memory import Apart, Slots, batchable
from modal_backend.engines.transformers_engine.sampling import Sampling, choose
from tests.backend.engines.tiny import VOCABULARY

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer(transformers.AutoTokenizer.from_pretrained(model_folder))


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(model_folder).eval()


# --- choosing ---


def test_choices_follow_the_chances() -> None:
    chances = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0])
    points = [(n + 0.5) / 1000 for n in range(1000)]
    logits = chances.log().expand(1000, -1).contiguous()
    counts = choose(logits, [Sampling()] * 1000, points).bincount(minlength=5).tolist()
    assert counts == [500, 250, 125, 125, 0]
    colder = choose(logits, [Sampling(temperature=0.5)] * 1000, points).bincount(minlength=5)
    assert colder.tolist() == pytest.approx([727, 182, 45, 46, 0], abs=1)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.6}, {0, 1}),
        ({"min_p": 0.35}, {0, 1}),
        ({"top_k": 3, "top_p": 0.99}, {0, 1, 2}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
        ({"top_k": 2000}, {0, 1, 2, 3}),
    ],
)
def test_limits_leave_only_the_likeliest(limits: dict[str, Any], left: set[int]) -> None:
    points = [(n + 0.5) / 200 for n in range(200)]
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0]).log().expand(200, -1).contiguous()
    assert set(choose(logits, [Sampling(**limits)] * 200, points).tolist()) == left


def test_a_row_s_choice_does_not_depend_on_its_neighbours() -> None:
    draw = random.Random(3)
    logits = torch.randn(40, 50, generator=torch.manual_seed(3)).round(decimals=1)  # with ties
    rows = [
        Sampling(
            temperature=draw.choice([0.0, 0.7, 1.3]),
            top_p=draw.choice([1.0, 0.8]),
            top_k=draw.choice([0, 5, 5000]),
            min_p=draw.choice([0.0, 0.05]),
        )
        for _ in range(40)
    ]
    points = [draw.random() for _ in range(40)]
    together = choose(logits, rows, points).tolist()
    alone = [choose(logits[i : i + 1], rows[i : i + 1], points[i : i + 1]).item() for i in range(40)]
    assert together == alone


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
def test_a_token_without_a_chance_is_never_chosen(point: float) -> None:
    logits = torch.full((1, 9), -torch.inf)
    logits[0, 3] = logits[0, 5] = 0.0
    for limits in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=4), Sampling(temperature=2.0, min_p=0.1)):
        assert choose(logits, [limits], [point]).item() in (3, 5)


# --- spelling ---

TEXTS = ["the river 你好 🌊🚀 naïve", " leading space", "🙂" * 30, "今日は\n\n猫", "a\u200db \ufffd c", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_cut_no_character(tokenizer: Tokenizer, text: str) -> None:
    spelling = Spelling(tokenizer)
    pieces = [spelling.add(token) for token in tokenizer.inner.encode(text, add_special_tokens=False)]
    last = spelling.end()
    assert "".join([*pieces, last]) == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)
        assert last == ""


def test_any_tokens_spell_what_they_decode_to(tokenizer: Tokenizer) -> None:
    for seed in range(100):
        ids = [random.Random(seed).randrange(VOCABULARY) for _ in range(seed)]
        ids = [one for one in ids if one < len(tokenizer.inner)]
        spelling = Spelling(tokenizer)
        assert "".join([spelling.add(one) for one in ids] + [spelling.end()]) == tokenizer.decode(ids)


def test_each_token_s_bytes_are_known(tokenizer: Tokenizer) -> None:
    ids = tokenizer.inner.encode("naïve 🌊 你好 x", add_special_tokens=False)
    assert b"".join(tokenizer.token(one)[1] or b"?" for one in ids).decode() == "naïve 🌊 你好 x"


# --- memory ---


def test_slots_and_caches_of_their_own_agree(model: Any) -> None:
    assert batchable(model)
    draw = random.Random(1)
    prompts = [[draw.randrange(500) for _ in range(size)] for size in (1, 7, 3, 300)]
    slots = [2, 0, 5, 1]
    found = []
    with torch.inference_mode():
        for memory in (Slots(model, 6, 512), Apart(model, 6, 512)):
            rows = [memory.fill(slots[:3], prompts[:3]), memory.fill(slots[3:], prompts[3:])]
            logits = torch.cat(rows)
            seen = [logits]
            for step in range(4):
                memory.put(slots, logits.argmax(-1))
                logits = memory.step(slots, 301 + step)
                seen.append(logits)
            memory.free(5)
            memory.put(slots[:2], logits[:2].argmax(-1))
            seen.append(memory.step(slots[:2], 20))
            found.append(seen)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["Mistral", "Qwen3", "Gemma3Text"])
def test_windows_are_kept(architecture: str) -> None:
    """Models that look back over a window only, in all or in some layers."""
    if architecture == "Mistral":
        config: Any = transformers.MistralConfig(**SMALL, sliding_window=6)
        made = transformers.MistralForCausalLM(config)
    elif architecture == "Qwen3":
        config = transformers.Qwen3Config(
            **SMALL, sliding_window=6, use_sliding_window=True, layer_types=KINDS, head_dim=16
        )
        made = transformers.Qwen3ForCausalLM(config)
    else:
        config = transformers.Gemma3TextConfig(**SMALL, sliding_window=6, layer_types=KINDS, head_dim=16)
        made = transformers.Gemma3ForCausalLM(config)
    made = made.eval()
    ids = [random.Random(5).randrange(100) for _ in range(30)]
    with torch.inference_mode():
        assert batchable(made)
        slots = Slots(made, 2, 256)
        slots.fill([1], [ids[:20]])
        for at in range(20, 30):
            slots.put([1], torch.tensor([ids[at]]))
            found = slots.step([1], at + 1)
            wanted = made(input_ids=torch.tensor([ids[: at + 1]])).logits[:, -1]
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


KINDS = ["sliding_attention", "full_attention"]
SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256,
}  # fmt: skip
