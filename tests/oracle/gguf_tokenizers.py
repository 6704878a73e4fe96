"""Tokenizers rebuilt from GGUF metadata.

The rebuilt tokenizer.json in PyPI's tokenizers gives our ids; and so does the
original, written down here a second time: for the byte-level tokenizers the
parts that the model's own tokenizer.json has, for SentencePiece the rule that
the neighbours that make the piece of the highest score merge first.
"""

import heapq
import json
import os
import struct
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from _generated_text import Generator
from _published_chains import CHAINS
from _sentencepiece import train
from _support import DRIVERS, run, scratch

GGUF = Path(os.environ["OPTIQ_GGUF_DIR"])
TEXT_BYTES = 300_000
SPECIAL_TEXTS = [
    "", " ", "  ", "\n\n\n", "\t\t a", "a  b   c    d", "<|im_start|>user\nHi<|im_end|>\n", "x<eos>y<bos>",
    "<table><tr><td> 12345 </td></tr></table>", "don't I'LL we've 3.14159 1234567", "caf\u00e9 cafe\u0301 \u212b",
    "\u2581\u2581x", "a\u0000b", "\U0001f469\u200d\U0001f4bb\U0001f1e9\U0001f1ea", "<0x41><unused7>",
    " " * 70 + "end", "\n" * 40,
]


def our_ids(tokenizer_json, texts, folder):
    records = folder / "texts"
    results = folder / "results"
    encoded = [t.encode() for t in texts]
    records.write_bytes(b"".join(struct.pack("<I", len(t)) + t for t in encoded))
    stdout, _ = run(DRIVERS / "tokenizer_driver", tokenizer_json, records, results)
    assert json.loads(stdout)["streams_that_differ"] == 0
    data = results.read_bytes()
    at, ids = 0, []
    for text in texts:
        (n,) = struct.unpack_from("<I", data, at)
        ids.append(np.frombuffer(data, np.int32, n, at + 4).tolist())
        (size,) = struct.unpack_from("<I", data, at + 4 + 4 * n)
        at += 8 + 4 * n + size
    return ids


def side_files(model, folder):
    out = folder / f"{model.stem}.files"
    out.mkdir()
    run(DRIVERS / "gguf_driver", "tokenizer", model, out)
    return out


def metadata(model):
    fields = GGUFReader(model).fields
    prefix = "tokenizer.ggml."
    return {k[len(prefix):]: f.contents() for k, f in fields.items() if k.startswith(prefix)}


def added_tokens(meta):
    return [
        AddedToken(token, normalized=False, special=kind == 3)
        for token, kind in zip(meta["tokens"], meta["token_type"])
        if kind in (3, 4)
    ]


def byte_level_original(meta, pre_tokenizer, normalizer=None, ignore_merges=False, bos=None):
    vocab = {t: i for i, t in enumerate(meta["tokens"]) if meta["token_type"][i] != 5}
    merges = [tuple(m.split(" ")) for m in meta["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(added_tokens(meta))
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocab[bos])])
    return tokenizer


class SentencePiece:
    """The rule of SentencePiece's BPE, from pieces and scores alone."""

    def __init__(self, meta):
        kinds = meta["token_type"]
        self.ids = {t: i for i, t in enumerate(meta["tokens"]) if kinds[i] == 1}
        self.scores = meta["scores"]
        self.bytes = {t: i for i, t in enumerate(meta["tokens"]) if kinds[i] == 6}
        self.added = {t: i for i, t in enumerate(meta["tokens"]) if kinds[i] in (3, 4)}
        self.longest = max(map(len, self.added))
        self.prefix = [meta["bos_token_id"]] if meta["add_bos_token"] else []
        self.space_prefix = meta["add_space_prefix"]

    def plain(self, text):
        text = " " + text if text and self.space_prefix else text
        symbols = list(text.replace(" ", "\u2581"))
        nxt = list(range(1, len(symbols) + 1))
        prev = list(range(-1, len(symbols) - 1))
        queue = []

        def offer(left):
            right = nxt[left]
            if right < len(symbols):
                piece = symbols[left] + symbols[right]
                if piece in self.ids:
                    heapq.heappush(queue, (-self.scores[self.ids[piece]], left, right, piece))

        for i in range(len(symbols)):
            offer(i)
        while queue:
            _, left, right, piece = heapq.heappop(queue)
            if symbols[left] is None or nxt[left] != right or symbols[right] is None \
                    or symbols[left] + symbols[right] != piece:
                continue
            symbols[left], symbols[right] = piece, None
            nxt[left] = nxt[right]
            if nxt[left] < len(symbols):
                prev[nxt[left]] = left
            offer(left)
            if prev[left] >= 0:
                offer(prev[left])
        ids = []
        for symbol in symbols:
            if symbol in self.ids:
                ids.append(self.ids[symbol])
            elif symbol is not None:
                ids += [self.bytes[f"<0x{b:02X}>"] for b in symbol.encode()]
        return ids

    def encode(self, text):
        ids, plain, at = list(self.prefix), "", 0
        while at < len(text):
            for n in range(min(self.longest, len(text) - at), 0, -1):
                if text[at : at + n] in self.added:
                    ids += self.plain(plain) + [self.added[text[at : at + n]]]
                    plain, at = "", at + n
                    break
            else:
                plain += text[at]
                at += 1
        return ids + self.plain(plain)


def check(name, model, make_original, folder, added=()):
    out = side_files(model, folder)
    original = make_original(metadata(model))
    texts = SPECIAL_TEXTS + list(Generator(7, added).texts(TEXT_BYTES))
    ours = our_ids(out / "tokenizer.json", texts, folder)
    rebuilt = Tokenizer.from_file(str(out / "tokenizer.json"))
    for whose, theirs in (("the rebuilt file", rebuilt), ("the original", original)):
        bad = [(t, a, e) for t, a, e in zip(texts, ours, encode_all(theirs, texts), strict=True) if a != e]
        assert not bad, f"{name}: {len(bad)} texts differ from {whose}: {bad[0]}"
    print(f"{name}: {len(texts)} texts, {sum(map(len, ours))} ids, 0 differences", flush=True)
    return out


def encode_all(tokenizer, texts):
    if isinstance(tokenizer, Tokenizer):
        return [e.ids for e in tokenizer.encode_batch_fast(texts)]
    return [tokenizer.encode(t) for t in texts]


def words(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def digits():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])


LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# name of tokenizer.ggml.pre: pre-tokenizer, normalizer, ignore_merges, BOS
BYTE_LEVEL = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), None, False, False),
    "smollm": (digits(), None, False, False),
    "llama-bpe": (words(LETTERS + r"\p{N}{1,3}" + REST), None, True, True),
    "qwen2": (words(LETTERS + r"\p{N}" + REST), normalizers.NFC(), False, False),
}
# Other names, and the published chain that each stands for.
PUBLISHED = {
    "tekken": "Mistral Nemo (Tekken)", "gpt-4o": "o200k, GPT-OSS", "deepseek-llm": "DeepSeek LLM, v2",
    "deepseek-coder": "DeepSeek Coder", "deepseek-v3": "DeepSeek v3", "falcon": "Falcon", "command-r": "Command-R",
    "olmo": "GPT-NeoX, OLMo", "bloom": "BLOOM", "viking": "Viking, Poro", "glm4": "GLM-4", "kimi-k2": "Kimi K2",
    "qwen35": "Qwen 3.5", "seed-coder": "Seed-Coder", "bailingmoe": "Ling", "superbpe": "SuperBPE",
    "chameleon": "Chameleon",
}


def published(label):
    """Pre-tokenizer, normalizer and ignore_merges of a chain, in the judge's types."""
    _, model, normalizer, pre_tokenizer, _ = next(row for row in CHAINS if row[0] == label)
    shell = Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []}}))
    return shell.pre_tokenizer, shell.normalizer, model == "merges"


for _pre, _label in PUBLISHED.items():
    BYTE_LEVEL[_pre] = (*published(_label), _pre in ("tekken", "chameleon"))
SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
PLAIN_ADDED = ["<think>", "two words"]


def write_vocabulary(path, model, meta):
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(meta["tokens"])
    writer.add_token_types(meta["token_type"])
    writer.add_bos_token_id(meta["tokens"].index("<s>"))
    writer.add_eos_token_id(meta["tokens"].index("</s>"))
    if "scores" in meta:
        writer.add_token_scores(meta["scores"])
    if "merges" in meta:
        writer.add_token_merges(meta["merges"])
    if "pre" in meta:
        writer.add_tokenizer_pre(meta["pre"])
    if "charsmap" in meta:
        writer.add_precompiled_charsmap(meta["charsmap"])
        writer.add_remove_extra_whitespaces(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def check_byte_level(pre, folder):
    """A vocabulary trained here, with padding rows as converters add them."""
    pre_tokenizer, normalizer, ignore_merges, bos = BYTE_LEVEL[pre]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.normalizer = pre_tokenizer, normalizer
    trained.train_from_iterator(
        Generator(100).texts(200_000 if pre not in PUBLISHED else 60_000),
        trainers.BpeTrainer(vocab_size=1500, show_progress=False, special_tokens=SPECIALS,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    description = json.loads(trained.to_str())["model"]
    tokens = sorted(description["vocab"], key=description["vocab"].get) + PLAIN_ADDED
    kinds = [3 if t in SPECIALS else 4 if t in PLAIN_ADDED else 1 for t in tokens]
    meta = {"pre": pre, "merges": [" ".join(m) for m in description["merges"]],
            "tokens": tokens + ["[PAD0]", "[PAD1]"], "token_type": kinds + [5, 5]}
    path = folder / f"{pre}.gguf"
    write_vocabulary(path, "gpt2", meta)
    check(pre, path, lambda m: byte_level_original(
        m, pre_tokenizer, normalizer, ignore_merges, "<s>" if bos else None), folder, SPECIALS + PLAIN_ADDED)


def check_space_prefix(folder):
    """A SentencePiece vocabulary of the kind that starts texts with a space."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trained.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    trained.train_from_iterator(
        Generator(100).texts(200_000),
        trainers.BpeTrainer(vocab_size=3000, limit_alphabet=900, show_progress=False))
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces + ["[INST]"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [4]
    scores = [0.0] * 259 + [float(-i) for i in range(len(pieces))] + [0.0]
    path = folder / "space_prefix.gguf"
    write_vocabulary(path, "llama", {"tokens": tokens, "token_type": kinds, "scores": scores})
    check("SentencePiece with space prefix", path, lambda m: SentencePiece(
        {**m, "add_bos_token": True, "add_space_prefix": True}), folder, ["<s>", "</s>", "[INST]"])


def check_unigram(folder):
    """The model t5 has all of a SentencePiece model: that is the judge."""
    model = train(folder, dict(model_type="unigram", user_defined_symbols=["[INST]"]))
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    path = folder / "unigram.gguf"
    write_vocabulary(path, "t5", {
        "tokens": [p.piece for p in proto.pieces], "token_type": [p.type for p in proto.pieces],
        "scores": [p.score for p in proto.pieces], "charsmap": proto.normalizer_spec.precompiled_charsmap})
    judge = SentencePieceProcessor(model_proto=model)
    texts = [t for t in SPECIAL_TEXTS if "<" not in t] + list(Generator(7, ["[INST]"]).texts(TEXT_BYTES))
    bad = [t for t, ids in zip(texts, our_ids(side_files(path, folder), texts, folder), strict=True)
           if ids != judge.encode(t) + [judge.eos_id()]]
    assert not bad, f"t5: {len(bad)} of {len(texts)} texts differ: {bad[0]!r}"
    print(f"t5: {len(texts)} texts, 0 differences", flush=True)


def check_real(folder):
    smollm, gemma = GGUF / "SmolLM2-135M-Instruct.Q4_1.gguf", GGUF / "gemma-3-270m-q4_k_m.gguf"
    if not (smollm.exists() and gemma.exists()):
        print("no real models in OPTIQ_GGUF_DIR: run ./scripts/setup --developer")
        return
    added = ["<|im_start|>", "<|im_end|>", "<repo_name>"]
    out = check("SmolLM2", smollm, lambda m: byte_level_original(m, digits()), folder, added)
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["chat_template"] == GGUFReader(smollm).fields["tokenizer.chat_template"].contents()
    assert config["eos_token"] == "<|im_end|>", config
    check("Gemma 3", gemma, SentencePiece, folder, ["<eos>", "<start_of_turn>", "\n\n", "<table>", "    "])


def main():
    with scratch() as folder:
        for pre in BYTE_LEVEL:
            check_byte_level(pre, Path(folder))
        check_space_prefix(Path(folder))
        check_unigram(Path(folder))
        check_real(Path(folder))


main()
