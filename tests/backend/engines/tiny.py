"""A model of a few megabytes with random weights, and a real tokenizer trained on text that is written here.

Rule: made the same on every machine, saved as a folder like any model's, and loaded by the engine's own code.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"
VOCABULARY = 600
LENGTH = 512  # tokens of context

SENTENCES = """
the a river runs through old stone and young grass while people count boats bridges letters numbers
question answer because water keeps moving nobody asks where night begins three seven twelve hundred
naïve café straße größe coração déjà vu Привет мир вода река 你好 世界 水 河 今日は 猫 こんにちは 🙂 🌊 🚀
{"name": "value", "count": 12, "list": [1, 2.5, true, false, null], "empty": {}} <tag> & more;
"""
WORDS = SENTENCES.split()


def text(seed: int, words: int = 4000) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words))


def tokenizer(length: int = LENGTH) -> Any:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([text(seed) for seed in range(3)], trainer)
    begin = inner.token_to_id(BOS)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=BOS, eos_token=EOS, model_max_length=length,
        additional_special_tokens=[USER, ASSISTANT],
    )  # fmt: skip


def save(folder: Path, length: int = LENGTH) -> Path:
    """The model's folder, as one would find it on the hub; ``length`` is its context in tokens."""
    made = tokenizer(length)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=length,
        bos_token_id=made.bos_token_id, eos_token_id=made.eos_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # as initialised, all tokens are about equally likely and greedy answers repeat one
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4.0)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
