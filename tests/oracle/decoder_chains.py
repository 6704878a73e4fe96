"""Decoded and streamed text of every decoder of PyPI's `tokenizers`, alone, in
pairs and in longer chains. 0 differences are allowed."""

import sys
from pathlib import Path

import tokenizers

from _decoder_chains import chains, texts, tokenizer
from _sentencepiece import run_driver
from _support import scratch

PER_CHAIN = 60


def judged(judge, text):
    """Nothing where the judge itself fails: it cannot strip what is shorter."""
    ids = judge.encode(text).ids
    try:
        return ids, judge.decode(ids, skip_special_tokens=False)
    except BaseException as error:  # a Rust panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return ids, None


def main():
    print(f"tokenizers {tokenizers.__version__}")
    count = bad = streams = skipped = 0
    with scratch() as name:
        folder = Path(name)
        for number, decoder in enumerate(chains()):
            judge = tokenizer(decoder)
            judge.save(str(folder / "tokenizer.json"))
            samples = texts(PER_CHAIN, number)
            report, results = run_driver(folder / "tokenizer.json", samples, folder)
            streams += report["streams_that_differ"]
            for text, (ids, back) in zip(samples, results, strict=True):
                want_ids, want = judged(judge, text)
                skipped += want is None
                if ids != want_ids or (want is not None and back != want):
                    bad += 1
                    if bad <= 10:
                        print(f"  {decoder}: {text!r} gives {back!r}, wanted {want!r}")
            count += 1
    print(f"{count} chains, {count * PER_CHAIN} texts ({skipped} fail in the judge): {bad} differ, {streams} streams differ")
    sys.exit(1 if bad or streams else 0)


main()
