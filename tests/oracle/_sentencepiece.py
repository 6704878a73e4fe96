"""SentencePiece models trained here, and what the judges say of them."""

import io
import json
import os
import struct
import subprocess
import time

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from _generated_text import ENGLISH, Generator
from _support import DRIVERS

SPACE_MARK = "\u2581"
USER_DEFINED = ["<|user|>", "[INST]", "[INST", "wo rd", "\n\n", SPACE_MARK * 4, "\u00e9t\u00e9", "<mid>"]
BYTES_256 = {"byte_fallback": True}
LLAMA = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, **BYTES_256}
GEMMA = {**LLAMA, "add_dummy_prefix": False, "user_defined_symbols": USER_DEFINED}
# name: options of the trainer, change of the trained model
KINDS = {
    "bpe, llama": (dict(model_type="bpe", **LLAMA), None),
    "bpe, gemma": (dict(model_type="bpe", **GEMMA), None),
    "bpe, nmt_nfkc, user-defined": (dict(model_type="bpe", user_defined_symbols=USER_DEFINED), None),
    "bpe, nfkc_cf, spaces behind": (
        dict(model_type="bpe", normalization_rule_name="nfkc_cf", treat_whitespace_as_suffix=True), None),
    "bpe, unused pieces": (dict(model_type="bpe", **LLAMA), "unused"),
    "bpe, equal scores": (dict(model_type="bpe", **LLAMA), "equal scores"),
    "bpe, characters that are no piece": (dict(model_type="bpe", **LLAMA), "no characters"),
    "unigram, nmt_nfkc": (dict(model_type="unigram"), None),
    "unigram, nfkc, bytes, user-defined": (
        dict(model_type="unigram", normalization_rule_name="nfkc", user_defined_symbols=USER_DEFINED, **BYTES_256),
        None),
    "unigram, nmt_nfkc_cf": (dict(model_type="unigram", normalization_rule_name="nmt_nfkc_cf"), None),
    "unigram, identity, spaces kept": (dict(model_type="unigram", **LLAMA), None),
    "unigram, own rules": (dict(model_type="unigram", normalization_rule_tsv=True), None),
    "unigram, unused pieces": (dict(model_type="unigram", **BYTES_256), "unused"),
    "unigram, spaces not marked": (dict(model_type="unigram"), "spaces not marked"),
    "unigram, spaces behind": (dict(model_type="unigram", treat_whitespace_as_suffix=True), None),
    "char": (dict(model_type="char", user_defined_symbols=USER_DEFINED), None),
}
# "ab" becomes "X", and so on: sources and targets as code points.
OWN_RULES = [("ab", "X"), ("abc", "yz"), ("e\u0301", "e"), ("\t", " "), ("\u200b", ""), ("oranges", "o r"), ("q", "")]


def own_rules(path):
    def points(text):
        return " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{points(a)}\t{points(b)}\n" for a, b in OWN_RULES))
    return str(path)


def change(model, how):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    normal = [p for p in proto.pieces if p.type == 1]
    if how == "unused":
        for piece in normal[3::5]:
            piece.type = 5
    elif how == "equal scores":
        for piece in normal:
            piece.score = float(int(piece.score / 7))
    elif how == "no characters":
        for piece in [p for p in normal if len(p.piece) == 1][::4]:
            piece.type = 3
            piece.piece = f"<was {ord(piece.piece)}>"
    elif how == "spaces not marked":
        proto.normalizer_spec.escape_whitespaces = False
    return proto.SerializeToString()


def train(folder, options, how=None, vocab_size=8000):
    """Bytes of a model of the generated text."""
    lines = [line for text in Generator(100).texts(150_000) for line in text.split("\n") if line.strip()]
    lines += [" ".join(ENGLISH[i % 60 :]) for i in range(300)]
    options = dict(options)
    if options.get("normalization_rule_tsv"):
        options["normalization_rule_tsv"] = own_rules(folder / "rules.tsv")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=vocab_size, character_coverage=0.98,
        hard_vocab_limit=False, num_threads=1, minloglevel=2, seed_sentencepiece_size=20000, num_sub_iterations=1,
        max_sentence_length=100_000, **options)
    return change(out.getvalue(), how)


def run_driver(tokenizer, texts, folder):
    """The driver's report, and (ids, decoded text) of every text."""
    with open(folder / "texts", "wb") as out:
        for text in texts:
            data = text.encode()
            out.write(struct.pack("<I", len(data)) + data)
    command = [DRIVERS / "tokenizer_driver", tokenizer, folder / "texts", folder / "results"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    data, at, results = (folder / "results").read_bytes(), 0, []
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        ids = np.frombuffer(data, np.int32, count, at + 4).tolist()
        (size,) = struct.unpack_from("<I", data, at + 4 + 4 * count)
        at += 8 + 4 * count + size
        results.append((ids, data[at - size : at].decode()))
    return report, results


def write_directory(folder, model, config=None, model_type="llama"):
    os.makedirs(folder, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def compare(name, judge, encode, decode, report, results, texts):
    """Number of texts that differ; prints a line."""
    begin = time.process_time()
    expected = [encode(judge, text) for text in texts]
    seconds = time.process_time() - begin
    bad = 0
    for text, (ids, back), want in zip(texts, results, expected, strict=True):
        wanted_text = decode(judge, want)
        if ids != want or (wanted_text is not None and back != wanted_text):
            bad += 1
            if bad <= 3:
                show(text, ids, want, back, wanted_text)
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    print(f"{name}: {megabytes:.2f} MB in {len(texts)} texts, {bad} differ, {report['streams_that_differ']} streams "
          f"differ; {report['encode_seconds'] / megabytes:.2f} s/MB, judge {seconds / megabytes:.2f} s/MB", flush=True)
    return bad + report["streams_that_differ"]


def show(text, ids, want, back, wanted_text):
    if ids == want:
        print(f"  decoded {back[:120]!r}, wanted {wanted_text[:120]!r}")
        return
    at = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), min(len(ids), len(want)))
    print(f"  text {text[:120]!r}: at {at} {ids[at : at + 6]}, wanted {want[at : at + 6]}")
