"""Decoders of tokenizers in chains, and a vocabulary that shows what they do."""

import json
import random

from tokenizers import Regex, Tokenizer, decoders

TOKENS = [
    "\u2581", "\u2581\u2581", "\u2581the", "a", "b\u2581", " ", "  x ", "\u00e9", "\U0001f600", "##ing", "##", "x##y", "low</w>",
    "</w>", "<pad>", "|", "a|b", "<pad>a", " .", " ,", " n't", " ' ", "do not", " do not", "\u0120a", "\u00c3", "\u00a9", "\u00e2\u0124",
    "\u00f0\u0141\u013a", "\u00a1", "\u20ac", "\n", "aa", "aaa", "<0x41>", "<0xC3>", "<0xA9>", "<0xF0>", "<0x9F>", "<0x98>",
    "<0x80>", "<0xE2>", "<0xe2>", "<0xGG>", "<0x4>", "\u2581</w>", "##\u2581", "<0x0A>",
]


def steps():
    return [
        decoders.ByteLevel(),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Metaspace("\u2581", "always"),
        decoders.Metaspace("\u2581", "never"),
        decoders.Metaspace("\u2581", "first"),
        decoders.WordPiece("##", True),
        decoders.WordPiece("##", False),
        decoders.BPEDecoder("</w>"),
        decoders.CTC("<pad>", "|", True),
        decoders.CTC("<pad>", "|", False),
        decoders.Replace("\u2581", " "),
        decoders.Replace("aa", "x"),
        decoders.Replace(Regex("[ab]+|\\s"), "_"),
        decoders.Strip(" ", 1, 0),
        decoders.Strip("a", 0, 1),
        decoders.Strip("\u2581", 2, 0),
    ]


def chains():
    """Each decoder alone, each pair, the published chains, random ones."""
    single = steps()
    yield from single
    for first in single:
        for second in single:
            yield decoders.Sequence([first, second])
    spaces, fallback, fuse = decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()
    yield decoders.Sequence([spaces, fallback, fuse])
    yield decoders.Sequence([spaces, fallback, fuse, decoders.Strip(" ", 1, 0)])
    generator = random.Random(5)
    for _ in range(60):
        yield decoders.Sequence([generator.choice(single) for _ in range(generator.randint(3, 5))])


def tokenizer(decoder):
    """Every token is an added one, so that texts choose the ids."""
    vocab = {"unk": 0}
    added = []
    for token in TOKENS:
        vocab[token] = len(vocab)
        added.append({"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": False})
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "unk"}
    judge = Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}))
    judge.decoder = decoder
    return judge


def texts(count, seed):
    generator = random.Random(seed)
    return ["".join(generator.choice(TOKENS) for _ in range(generator.randint(0, 12))) for _ in range(count)]
