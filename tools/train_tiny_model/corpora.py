"""Texts, tokenizer and packed training rows of tiny-qwen3.5."""

import dataclasses
import json
import multiprocessing
import random
import re

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import tasks

VOCABULARY = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
# The pre-tokenizer of Qwen3.5.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
           r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content "
    "+ '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}")
# Of the second text only so much trains the tokenizer.
TOKENIZER_CHARACTERS = 2_500_000
SYNTHETIC_CHATS = 3000


@dataclasses.dataclass
class Texts:
    wiki: str  # prose; its sentences are also the filler of the recall task
    prose: str  # more prose, older English
    chats: list  # worked school problems as chats


def read_texts(wiki_path, prose_path, gsm_path):
    """gsm_path: JSON lines with `question` and `answer`; the calculator marks
    <<...>> in answers are dropped from the training text."""
    with open(wiki_path, encoding="utf-8") as wiki, open(prose_path, encoding="utf-8") as prose:
        texts = Texts(wiki.read(), prose.read(), [])
    with open(gsm_path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts.chats = [(row["question"], row["answer"]) for row in rows]
    return texts


def train_tokenizer(texts, rng):
    """A byte-level BPE tokenizer over all texts and some synthetic chats."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    corpus = [texts.wiki, texts.prose[:TOKENIZER_CHARACTERS]]
    corpus += [f"{question}\n{answer}" for question, answer in texts.chats]
    corpus += [tasks.chat(*tasks.problem(rng)[:2]) for _ in range(SYNTHETIC_CHATS)]
    tokenizer.train_from_iterator(corpus, trainer=trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(ADDED)
    return tokenizer


def as_transformers_tokenizer(tokenizer):
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


class RowMaker:
    """Makes rows of length + 1 token ids of one kind of text."""

    def __init__(self, texts, tokenizer, rng):
        self.tokenizer = tokenizer
        self.rng = rng
        self.prose = self.encode(texts.wiki) + self.encode(texts.prose)
        sentences = re.split(r"(?<=[.;])\s+", texts.wiki.replace("\n", " "))
        self.sentences = [s.strip() for s in sentences if 30 < len(s) < 200]
        self.school = [
            self.encode(tasks.chat(question, re.sub(r"<<.*?>>", "", answer)))
            for question, answer in texts.chats
        ]

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def filler(self, count):
        first = self.rng.randrange(0, len(self.sentences) - count - 1)
        return self.sentences[first:first + count]

    def problem(self):
        return self.encode(tasks.chat(*tasks.problem(self.rng)[:2]))

    def recall(self, facts, sentences):
        question, answer, _ = tasks.recall(self.rng, self.filler, facts, sentences)
        return self.encode(tasks.chat(question, answer))

    def short_recall(self, most_sentences=8):
        return self.recall(self.rng.randint(1, 8), self.rng.randint(0, most_sentences))

    def packed(self, make, length):
        row = []
        while len(row) < length:
            row += make()
        return row[:length]

    def long_recall_row(self, length):
        """One long recall at the start, short ones up to the length."""
        row = self.recall(self.rng.randint(4, 24), self.rng.randint(16, 40))[-length:]
        return row + self.packed(lambda: self.short_recall(2), length - len(row))

    def row(self, kind, length):
        if kind == "problem":
            return self.packed(self.problem, length)
        if kind == "recall":
            return self.packed(self.short_recall, length)
        if kind == "long_recall":
            return self.long_recall_row(length)
        if kind == "school":
            return self.packed(lambda: self.rng.choice(self.school), length)
        if kind == "prose":
            first = self.rng.randrange(0, len(self.prose) - length)
            return self.prose[first:first + length]
        raise ValueError(f"[RowMaker.row] kind: found {kind!r}")


LENGTH = 512
LONG_LENGTH = 2048
# (kind, row length, rows per job, jobs); each job has its own seed.
POOLS = [
    ("problem", LENGTH, 3000, 16),
    ("recall", LENGTH, 2500, 14),
    ("long_recall", LONG_LENGTH, 200, 12),
    ("school", LENGTH, 2000, 1),
    ("prose", LENGTH, 12000, 1),
]

_maker = None  # of the worker processes, which fork after it is set


def _make_rows(job):
    kind, length, rows, seed = job
    _maker.rng = random.Random(seed)
    return kind, torch.tensor([_maker.row(kind, length + 1) for _ in range(rows)], dtype=torch.int32)


def make_pools(maker, seed, processes):
    """kind -> [rows, length + 1] int32, made by forked processes."""
    global _maker
    _maker = maker
    jobs = [(kind, length, rows, seed * 1000 + 100 * place + i)
            for place, (kind, length, rows, count) in enumerate(POOLS)
            for i in range(count)]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        made = pool.map(_make_rows, jobs, chunksize=1)
    return {kind: torch.cat([rows for k, rows in made if k == kind]) for kind, *_ in POOLS}
