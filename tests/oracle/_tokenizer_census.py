"""The census: every chain of _published_chains.py with a small vocabulary,
compared with the PyPI package `tokenizers` on generated text of 33 scripts."""

import json
import math
import os
import tempfile

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from _generated_text import Generator, every_code_point
from _published_chains import CHAINS
from _tokenizer_comparison import judge_ids, parse_results, run_driver

SPECIALS = ["<unk>", "<s>", "</s>"]
TEXTS_OF_SPACES = ["", " ", "\n", "  \n\n  \t x", " " * 3000, "\n" * 3000 + "x", "a" * 3000, "'" * 500, "漢" * 900, "\u0301" * 500,
                   "1" * 2000, "don't" * 300, "!?" * 700 + "\r\n\r\n"]


def train(kind, sample):
    """model of a tokenizer.json"""
    if kind == "wordpiece":
        judge = Tokenizer(models.WordPiece(unk_token="<unk>"))
        judge.normalizer = normalizers.BertNormalizer()
        judge.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        judge.train_from_iterator(sample, trainers.WordPieceTrainer(
            vocab_size=6000, special_tokens=SPECIALS, show_progress=False))
    elif kind == "pieces":
        judge = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        judge.pre_tokenizer = pre_tokenizers.Metaspace()
        judge.train_from_iterator(sample, trainers.BpeTrainer(
            vocab_size=5000, special_tokens=SPECIALS + [f"<0x{b:02X}>" for b in range(256)], limit_alphabet=1200,
            max_token_length=24, show_progress=False))
    else:
        judge = Tokenizer(models.BPE())
        judge.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        judge.train_from_iterator(sample, trainers.BpeTrainer(
            vocab_size=6000, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=24, show_progress=False))
    return json.loads(judge.to_str())["model"]


def unigram_of(pieces):
    """A Unigram model of the pieces of a BPE model, the later the less likely."""
    tokens = sorted(pieces["vocab"], key=pieces["vocab"].get)
    vocab = [[t, 0.0 if t in SPECIALS else -math.log(i + 7)] for i, t in enumerate(tokens) if not t.startswith("<0x")]
    return {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False}


def tokenizer_of(row, trained):
    name, kind, normalizer, pre_tokenizer, decoder = row
    model = dict(trained["bytes" if kind == "merges" else kind])
    if kind == "merges":
        model["ignore_merges"] = True
    vocab = model["vocab"]
    ids = {text: i for i, (text, _) in enumerate(vocab)} if kind == "unigram" else vocab
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": None, "decoder": decoder, "model": model,
        "added_tokens": [{"id": ids[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for t in SPECIALS]}))


def count_differences(judge, texts, folder):
    """(texts that differ in ids, decoded or streamed text, our CPU seconds, the package's)"""
    report, results = run_driver(judge, texts, folder)
    expected, seconds = judge_ids(judge, texts)
    bad = report["streams_that_differ"]
    back = judge.decode_batch([ids.tolist() for ids in expected], skip_special_tokens=False)
    for text, (ids, decoded), want, want_text in zip(texts, parse_results(results), expected, back, strict=True):
        if ids.tolist() != want.tolist() or decoded != want_text:
            bad += 1
            if bad <= 2:
                at = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), min(len(ids), len(want)))
                print(f"   differs at id {at}: ours {ids[at - 2 : at + 3].tolist()}, theirs {want[at - 2 : at + 3].tolist()}, "
                      f"text {text[:120]!r}, decoded equal: {decoded == want_text}")
    return bad, report["encode_seconds"], seconds


def run_census(text_bytes, code_point_share):
    """Prints the table; number of texts with a difference, and chains that are
    slower than half the package's speed."""
    points = every_code_point()
    trained = {kind: train(kind, Generator(100).texts(250_000)) for kind in ("bytes", "pieces", "wordpiece")}
    trained["unigram"] = unigram_of(trained["pieces"])
    failures = 0
    print("| chain | MB | texts that differ | s/MB | tokenizers s/MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=os.environ["OPTIQ_SCRATCH_DIR"]) as folder:
        for i, row in enumerate(CHAINS):
            texts = Generator(300 if text_bytes > 5e6 else 300 + i, SPECIALS).texts(text_bytes)
            texts += TEXTS_OF_SPACES + points[i % code_point_share :: code_point_share]
            bad, ours, theirs = count_differences(tokenizer_of(row, trained), texts, folder)
            megabytes = sum(len(t.encode()) for t in texts) / 1e6
            print(f"| {row[0]} | {megabytes:.2f} | {bad} | {ours / megabytes:.3f} | {theirs / megabytes:.3f} |", flush=True)
            failures += bad
            if ours > 2 * theirs + 0.05:
                print(f"   {row[0]}: slower than half the package's speed")
                failures += 1
    return failures
