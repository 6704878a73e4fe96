"""Ids and decoded text of a tokenizer.model against the PyPI package
`sentencepiece`, for every kind of model and normalizer; and what a folder says
of special tokens against transformers. 0 differences are allowed."""

import json
import logging
import sys
from pathlib import Path

import sentencepiece
from transformers import AutoTokenizer

from _generated_text import Generator
from _sentencepiece import KINDS, USER_DEFINED, compare, run_driver, train, write_directory
from _support import scratch

TEXT_BYTES = 250_000
SPECIAL_TEXTS = [
    "", " ", "   ", "\u2581", "\u2581\u2581", " \u2581 ", "a", " a", "  a  b  ", "a ", "\n", "a\n\nb", "\u200b", "\u200b a",
    "\u3000\u3000a\u3000", "\t a", "a\u0000b", "\u0000", "<0x41>", "abc abcab ab", "\u00e9t\u00e9", "e\u0301te\u0301",
    "wo rd", "wo  rd", "[INST][INST [INST]", "<mid><mid>x<mid>", "\ufb01\u00bd\u2460\uff21\u30a2\uff71\u3099", "a" * 3000, " " * 70 + "end",
    "\U0001f469\u200d\U0001f4bb\U0001f1e9\U0001f1ea", "Ab cD \u0130\u1e9e\u00df", "\ud7a3\u1112\u1161\u11ab",
]


def encode(judge, text):
    return judge.encode(text)


def decode(judge, ids):
    """Nothing where an unknown piece has no text of its own."""
    return None if judge.unk_id() in ids else judge.decode(ids)


def compare_kind(name, folder, texts):
    options, how = KINDS[name]
    folder = folder / name.replace(", ", "-").replace(" ", "-")
    folder.mkdir()
    model = train(folder, options, how)
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    report, results = run_driver(write_directory(folder / "model", model), texts, folder)
    return compare(name, judge, encode, decode, report, results, texts)


def compare_folder(name, folder, model, config, texts):
    """Against transformers, where it has sentencepiece's ids for plain text."""
    folder = folder / name.replace(" ", "-")
    directory = write_directory(folder, model, config)
    logging.disable(logging.WARNING)
    judge = AutoTokenizer.from_pretrained(directory)
    _, results = run_driver(directory, texts, folder)
    bad = 0
    for text, (ids, _) in zip(texts, results, strict=True):
        want = judge(text).input_ids
        if ids != want:
            bad += 1
            print(f"  {name}: {text!r}: {ids}, transformers {want}")
    print(f"{name}: {len(texts)} texts, {bad} differ from transformers", flush=True)
    return bad


def compare_folders(folder):
    llama = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = {"content": "<|turn|>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
             "special": True}
    model = train(folder, KINDS["bpe, llama"][0])
    size = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    texts = ["", "the apples", "a  b ", "<s>the apples</s> of Tom", "x<unk> y", "the<|turn|>apples <|turn|> x", "caf\u00e9"]
    configs = {
        "nothing added": llama,
        "BOS": {**llama, "add_bos_token": True},
        "BOS and EOS": {**llama, "add_bos_token": True, "add_eos_token": True},
        "token objects": {**llama, "add_bos_token": True, "bos_token": {**extra, "content": "</s>", "__type": "AddedToken"}},
        "legacy": {**llama, "legacy": True},
        "no legacy": {**llama, "legacy": False, "add_bos_token": True},
        "no space in front": {**llama, "add_prefix_space": False},
        "added tokens": {**llama, "added_tokens_decoder": {str(size): extra}},
    }
    return sum(compare_folder(name, folder, model, config, texts) for name, config in configs.items())


def main(kinds=KINDS, text_bytes=TEXT_BYTES):
    print(f"sentencepiece {sentencepiece.__version__}")
    with scratch() as name:
        folder = Path(name)
        texts = SPECIAL_TEXTS + Generator(7, USER_DEFINED).texts(text_bytes)
        failures = sum(compare_kind(kind, folder, texts) for kind in kinds)
        failures += compare_folders(folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
