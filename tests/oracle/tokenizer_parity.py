"""Token ids and decoded text against the PyPI package `tokenizers`: the
fixture model's tokenizer, and one trained here for every kind of part that
Tokenizer reads. 0 differences are allowed."""

import json
import os
import sys
import tempfile

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from _generated_text import SCRIPTS, Generator, every_code_point
from _tokenizer_comparison import compare

FULL_BYTES = 10_500_000  # of generated text, for the fixture
TRAINED_BYTES = 500_000

WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = WORD + r"\p{N}|" + REST
LLAMA3 = WORD + r"\p{N}{1,3}|" + REST
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
          r"\s+(?!\S)|\s+")
# Without a hand-written rule.
OTHER = r"[^\s\p{L}\p{M}]?[\p{L}\p{M}]+|\p{N}{1,4}(?=\p{N}|\s)|(?:\r?\n)+|\P{L}\s|\s+(?!\S)|\s+"

FLAGGED = [
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False, special=True),
    AddedToken("<both>", lstrip=True, rstrip=True, normalized=True),
    AddedToken("whole", single_word=True, normalized=False),
    AddedToken("<ab", normalized=False),
    AddedToken("<abc>", normalized=False),
    AddedToken("Ame\u0301lie", normalized=True),
    AddedToken("two words", normalized=True),
]


def byte_level_rule(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior, invert),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def gemma_decoder(*more):
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more]
    return decoders.Sequence(steps)


def kinds():
    """(name, options of the model, parts, whether it is byte-level)."""
    nfc, byte_level = normalizers.NFC(), decoders.ByteLevel()
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    smollm2 = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    digits = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    yield "gpt2", {}, dict(pre_tokenizer=gpt2, decoder=byte_level), True
    yield "smollm2", {}, dict(pre_tokenizer=smollm2, decoder=byte_level), True
    yield "digits, prefix space", {}, dict(pre_tokenizer=digits, decoder=byte_level), True
    yield "qwen2", {}, dict(normalizer=nfc, pre_tokenizer=byte_level_rule(QWEN2), decoder=byte_level), True
    yield "llama3", dict(ignore_merges=True), dict(pre_tokenizer=byte_level_rule(LLAMA3), decoder=byte_level), True
    yield "cl100k, removed inverted", {}, dict(
        pre_tokenizer=byte_level_rule(CL100K, "removed", True), decoder=byte_level), True
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        yield f"other regex, {behavior}", {}, dict(
            normalizer=nfc, pre_tokenizer=byte_level_rule(OTHER, behavior), decoder=byte_level), True
    yield "gemma", dict(byte_fallback=True, fuse_unk=True, unk_token="<unk>"), dict(
        normalizer=normalizers.Replace(" ", "▁"),
        pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"), decoder=gemma_decoder()), False
    yield "llama2", dict(byte_fallback=True, fuse_unk=True, unk_token="<unk>"), dict(
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=gemma_decoder(decoders.Strip(" ", 1, 0))), False
    for scheme in ("always", "first", "never"):
        yield f"metaspace {scheme}", dict(unk_token="<unk>", fuse_unk=scheme == "first"), dict(
            normalizer=nfc, pre_tokenizer=pre_tokenizers.Metaspace("▁", scheme, scheme != "never"),
            decoder=decoders.Metaspace("▁", scheme)), False


def train(options, parts, is_byte_level, sample):
    judge = Tokenizer(models.BPE(**options))
    for name, part in parts.items():
        setattr(judge, name, part)
    specials = ["<unk>", "<s>", "</s>"]
    if options.get("byte_fallback"):
        specials += [f"<0x{b:02X}>" for b in range(256)]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if is_byte_level else []
    judge.train_from_iterator(sample, trainers.BpeTrainer(
        vocab_size=6000, special_tokens=specials[:3], initial_alphabet=alphabet, limit_alphabet=1200,
        show_progress=False, max_token_length=24))
    if options.get("byte_fallback"):
        description = json.loads(judge.to_str())
        vocab = description["model"]["vocab"]
        for token in specials[3:]:
            vocab.setdefault(token, len(vocab))
        judge = Tokenizer.from_str(json.dumps(description))
    judge.add_tokens(FLAGGED)
    judge.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", judge.token_to_id("<s>")), ("</s>", judge.token_to_id("</s>"))])
    return judge


def main():
    print(f"tokenizers {tokenizers.__version__}, {len(SCRIPTS)} scripts")
    points = every_code_point()
    failures = 0
    with tempfile.TemporaryDirectory(dir=os.environ["OPTIQ_SCRATCH_DIR"]) as folder:
        fixture = Tokenizer.from_file(os.path.join(os.environ["OPTIQ_TEST_MODEL"], "tokenizer.json"))
        specials = [t.content for t in fixture.get_added_tokens_decoder().values()]
        texts = Generator(1, specials).texts(FULL_BYTES)
        failures += compare("tiny-qwen3.5, generated text", fixture, texts, folder)
        failures += compare("tiny-qwen3.5, every code point in 3 places, cased ones in 6", fixture, points, folder)
        flagged = [t.content for t in FLAGGED] + ["<right> ", " <left>", "Amélie", "<abc", "wholes", " whole "]
        for seed, (name, options, parts, is_byte_level) in enumerate(kinds()):
            sample = Generator(100).texts(300_000)
            judge = train(options, parts, is_byte_level, sample)
            texts = Generator(200 + seed, flagged).texts(TRAINED_BYTES)
            failures += compare(name, judge, texts + points[seed % 23 :: 23], folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
