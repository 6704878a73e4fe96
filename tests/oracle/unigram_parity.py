"""Ids and decoded text of Unigram models in tokenizer.json against the PyPI
package `tokenizers`: the chains that converted SentencePiece models have. 0
differences are allowed."""

import sys
from pathlib import Path

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from _generated_text import Generator, every_code_point
from _sentencepiece import BYTES_256, SPACE_MARK, compare, run_driver, train
from _support import scratch

TEXT_BYTES = 250_000


def chains(charsmap):
    """name: whether byte_fallback, parts of a tokenizer"""
    compiled = normalizers.Precompiled(charsmap)
    fallback = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    yield "mBART", False, dict(
        normalizer=compiled, pre_tokenizer=pre_tokenizers.Metaspace(), decoder=decoders.Metaspace())
    yield "generic, byte fallback", True, dict(
        normalizer=normalizers.Sequence([compiled, normalizers.Replace(" ", SPACE_MARK)]), decoder=fallback)
    yield "Metaspace first, not split", True, dict(
        pre_tokenizer=pre_tokenizers.Metaspace(SPACE_MARK, "first", False), decoder=fallback)
    yield "byte-level", False, dict(pre_tokenizer=pre_tokenizers.ByteLevel(), decoder=decoders.ByteLevel())


def encode(judge, text):
    return judge.encode(text).ids


def decode(judge, ids):
    return judge.decode(ids, skip_special_tokens=False)


def compare_chain(name, proto, byte_fallback, parts, folder, texts):
    vocab = [(p.piece, p.score) for p in proto.pieces]
    if name == "byte-level":
        known = {piece for piece, _ in vocab}
        vocab += [(c, -12.5) for c in pre_tokenizers.ByteLevel.alphabet() if c not in known]
    judge = Tokenizer(models.Unigram(vocab, 0, byte_fallback))
    for part, value in parts.items():
        setattr(judge, part, value)
    judge.save(str(folder / "tokenizer.json"))
    report, results = run_driver(folder / "tokenizer.json", texts, folder)
    return compare(name, judge, encode, decode, report, results, texts)


def main():
    print(f"tokenizers {tokenizers.__version__}")
    points = every_code_point()
    failures = 0
    with scratch() as name:
        folder = Path(name)
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(train(folder, dict(model_type="unigram", **BYTES_256)))
        for seed, chain in enumerate(chains(proto.normalizer_spec.precompiled_charsmap)):
            texts = Generator(40 + seed).texts(TEXT_BYTES) + points[seed % 11 :: 11]
            failures += compare_chain(chain[0], proto, *chain[1:], folder, texts)
    sys.exit(1 if failures else 0)


main()
