"""Matches of regular expressions against the engine in the PyPI package
`tokenizers`, Oniguruma: every construct, the published patterns, and generated
ones, in short texts of all kinds. 0 differences are allowed. What the package
refuses we may accept; what it accepts we may refuse only where ALLOWED says."""

import re
import sys

from tokenizers import Regex, pre_tokenizers

from _patterns import TEXTS, PatternGenerator, constructs, published, run_driver
from _support import scratch

GENERATED = 1500
# What the package takes and we refuse, since no tokenizer uses it: octal
# numbers, and back references in any case.
ALLOWED = re.compile(r"\\[1-7][0-7]|\(\?i:.*\\[1-9]", re.DOTALL)


def judged(pattern, text):
    """(pieces that match, all pieces) of the package; None: refused."""
    try:
        regex = Regex(pattern)
    except Exception:
        return None
    matched = pre_tokenizers.Split(regex, "removed", invert=True).pre_tokenize_str(text)
    cut = pre_tokenizers.Split(regex, "isolated").pre_tokenize_str(text)
    return [p for p, _ in matched], [p for p, _ in cut]


def pieces(text, matches):
    """The same of ours."""
    data = text.encode()
    matched = [data[a:b].decode() for a, b in matches if a < b]
    cut, at = [], 0
    for a, b in matches:
        cut += [data[at:a].decode(), data[a:b].decode()]
        at = b
    cut.append(data[at:].decode())
    return matched, [p for p in cut if p]


def main():
    generator = PatternGenerator(7)
    patterns = constructs() + published() + [generator.pattern() for _ in range(GENERATED)]
    with scratch() as folder:
        report, results = run_driver(patterns, TEXTS, folder)
    bad = compared = refused = exhausted = 0
    for pattern, found in zip(patterns, results, strict=True):
        if judged(pattern, "") is None:
            continue
        if found is None:
            refused += 1
            if not ALLOWED.search(pattern):
                bad += 1
                print("refused:", pattern)
            continue
        if None in found:  # more steps than a text may take; the package has no limit
            exhausted += 1
            continue
        for text, matches in zip(TEXTS, found, strict=True):
            compared += 1
            ours, theirs = pieces(text, matches), judged(pattern, text)
            if ours != theirs:
                bad += 1
                if bad <= 40:
                    print(f"{pattern!r} in {text!r}: ours {ours}, theirs {theirs}")
    print(f"{len(patterns)} patterns, {compared} comparisons, {refused} refused, {exhausted} ended by the budget, "
          f"{bad} bad; driver {report}")
    sys.exit(1 if bad or exhausted > 20 else 0)


if __name__ == "__main__":
    main()
