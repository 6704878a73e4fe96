"""Generated patterns that try to take time or memory without end, and texts
that help them."""

import random

from _patterns import run_driver
from _support import scratch

CPU_SECONDS = 4  # twice the limit of a text
MEBIBYTES = 128  # twice the limit, with the program and its texts
SIZE = 1_000_000
# 1 MB each: what nearly matches for long.
ADVERSE_TEXTS = {
    "letters": "a" * SIZE + "!",
    "spaces": " " * (SIZE // 2) + "x" + "ab" * (SIZE // 4),
    "lines": "é \n" * (SIZE // 4),
}


class HostileGenerator:
    ATOMS = ["a", "b", "[ab]", r"\w", r"\s", ".", r"\p{L}", r"[^b]", "é", r"\S", "(?m:.)", r"[\w\s]", "a|a", "a|ab", "aa|a", r"\w|\S"]
    ENDS = ["!$", "c", "$", r"(?!.)", r"\z", "[^a]b", r"(?=c)", "", r"\b\B"]

    def __init__(self, seed):
        self.random = random.Random(seed)

    def quantifier(self):
        return self.random.choice(["*", "+", "*?", "+?", "{2,}", "{1,40}", "{30}", "{0,300}", "++", "*+", "?", "{,9}?"])

    def nested(self):
        text = self.random.choice(self.ATOMS)
        for _ in range(self.random.randint(1, 5)):
            text = f"(?:{text}){self.quantifier()}"
            if self.random.random() < 0.3:
                text = f"(?:{text}|{self.random.choice(self.ATOMS)})"
        return text

    def sequence(self):
        return "".join(f"{self.random.choice(self.ATOMS[:12])}{self.quantifier()}" for _ in range(self.random.randint(2, 12)))

    def alternation(self):
        words = ["".join(self.random.choice("ab") for _ in range(self.random.randint(0, 6)))
                 for _ in range(self.random.randint(2, 40))]
        return f"(?:{'|'.join(words)}){self.quantifier()}"

    def huge(self):
        n = self.random.choice([50, 1000, 100000])
        return self.random.choice([f"(?:a{{{n}}}){{{n}}}", f"a{{0,{n}}}b", f"(?:a?){{{n}}}a{{{n}}}", f"(?:ab?){{{n},}}c",
                                   f"(?:(?:a{{1,{n}}}){{1,{n}}}){{1,{n}}}", f"(?:a|b){{{n}}}"])

    def look(self):
        inside = self.random.choice([self.sequence, self.alternation, self.nested])()
        return self.random.choice(["(?<=", "(?<!", "(?=", "(?!"]) + inside + ")" + self.random.choice(self.ATOMS)

    def reference(self):
        return self.random.choice([r"(a*)*\1", r"(\w+)\s*\1+", r"((a+)\2)+b", r"(a+)(b*)\1\2c", r"(.*)(.*)\1\2!", r"(?:(a)|b)*\1$"])

    def other(self):
        n = self.random.randint(1, 2000)
        return self.random.choice(["(" * n + "a" + ")" * n, "[" * n + "a" + "]" * n, "a?" * n + "a" * n, "(?i:" + "s" * n + ")",
                                   "|" * n, r"(?<n>\g<n>?a)", r"(a|\g<1>b)", "(?:)" * n + "*", "".join(map(chr, range(0x4E00, 0x4E00 + n))),
                                   "(?>" * (n % 90) + "a*" + ")*" * (n % 90), "(?=" * (n % 90) + ".*" + ")" * (n % 90) + "!"])

    def pattern(self):
        parts = [self.nested, self.nested, self.sequence, self.alternation, self.huge, self.look, self.reference, self.other]
        count = self.random.choice([1, 1, 2])
        return "".join(self.random.choice(parts)() for _ in range(count)) + self.random.choice(self.ENDS)


def run_hostile(count, seed, texts=tuple(ADVERSE_TEXTS)):
    """Prints what the patterns took; number of limits that were broken."""
    generator = HostileGenerator(seed)
    patterns = [generator.pattern() for _ in range(count)]
    failures = refused = exhausted = 0
    worst_seconds = worst_mebibytes = 0
    for name in texts:
        with scratch() as folder:
            report, results = run_driver(patterns, [ADVERSE_TEXTS[name]], folder)
        refused = sum(found is None for found in results)
        exhausted += sum(found == [None] for found in results)
        worst_seconds = max(worst_seconds, report["longest"])
        worst_mebibytes = max(worst_mebibytes, report["mebibytes"])
        if report["longest"] > CPU_SECONDS or report["mebibytes"] > MEBIBYTES:
            failures += 1
            print("over the limit:", name, report, patterns[report["slowest"]][:200])
    print(f"{count} hostile patterns on 1 MB of {', '.join(texts)}: {refused} refused, {exhausted} runs ended by the "
          f"budget, longest {worst_seconds:.2f} s of CPU time, most memory {worst_mebibytes:.0f} MiB")
    return failures
