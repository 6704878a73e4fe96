"""Regular expressions for patterns.py: those of published tokenizers, one of
every construct, and generated ones; and how to run the driver."""

import array
import json
import random
import struct
import subprocess

from _support import DRIVERS

CONSTRUCTS = r"""
^a | $ | \Aa | a\z | a\Z | \Ga | ^ | \bx | \Bx | \b | a.b | (?m:a.b) | [^a] | [a-c&&[^b]] | [[a-c][x-z]]+ | [^[a-c]x]
[a-z&&[^aeiou]]+ | [\w&&[^\d_]]+ | [[:alpha:]]+ | [[:^space:]]+ | [[:punct:]] | [[:upper:]][[:lower:]]* | [[:word:]]+
[[:alnum:]]+ | [[:digit:]]+ | [[:blank:]] | [[:cntrl:]] | [[:graph:]]+ | [[:print:]]+ | [[:xdigit:]]+ | [[:ascii:]]+
\d+ | \D+ | \w+ | \W+ | \s+ | \S+ | \h+ | \H+ | \R | \N+ | \O | \p{Lu}+ | \p{^Lu} | \P{Lu} | \p{Letter} | \p{L}\p{M}*
\p{Nd}+ | \p{Han}+ | \p{Hani} | \p{greek} | \p{Hiragana}|\p{Katakana} | \p{Alnum} | \p{Emoji} | \p{Uppercase}
\p{lowercase letter} | \p{Ideographic} | \p{Any} | \p{Assigned} | a+?b | a*?b | a??b | a{2} | a{2,} | a{,2} | a{1,2}
a{2}? | a{1,2}? | a{2}+ | a{1,2}+b | a{3,1} | a++b | a*+a | (?>a+)a | (?>a|ab)c | (a|ab)(c|bcd) | (?:a|ab)+?b | a**
(?=ab)a | (?!ab)a | (?<=a)b | (?<!a)b | (?<=a+)b | (?<=a|bc)d | (?<!^)b | (?<=^|\s)a | (a)\1 | (a*)b\1 | (?<n>a)\k<n>
(?<n>a)|(?<n>b)\k<n> | (?i:ab) | (?i)ab|c | a(?i)b|c | (?i:é) | (?i:ß) | (?i:ss) | (?i:st) | (?i:[ß]) | (?i:ffi)
(?i:k) | (?i:[k]) | (?i:[^k]) | (?i:\p{Lu}) | (?i:[\p{Lu}]) | (?-i:a) | (?i:a(?-i:b)) | (?x: a b # c
) | (?#x)a | a\Kb | (?:)* | (?:a?)* | (?:a?)+b | (?:a|)*b | (?:a*)*b | (a?)*\1 | (?:a*|b)* | (?:(?=a))* |
a|b|ab | (|a)+ | x* | (?:ab?)*? | [a-] | [-a] | [a\-b] | []a] | [^]a] | [\]a] | [\n\t] | [\x41-\x{43}] | \x41 | \u0041
\x{4e00} | [一-龥] | \t | \n | \101 | \e | \Q | \_ | \- | \/ | [\/] | a{ | a{b | a{,} | {a | a\{1\} | [a-z&&] | [&&a] | [a-c-e]
's|'t|'re|'ve|'m|'ll|'d | (?:\r?\n)+(?!\r?\n) | \s+(?!\S) | \s+$ | ^\s+ | \s*[\r\n]+ | (?:\r\n|\r|\n) | ( ?)\1x | .*
.+?(?=b) | (?:(?!ab).)+ | (?<=(?<!b)a)c | \p{Script=Han}
"""

TEXTS = [
    "", "a", "ab", "aab abab aaab", "a\nb\na\n", "\n", "\n\n", "a\r\nb\r\r\n\n c", "abcd bcd xbd", " a  b   ", "Ab aB AB ab Ss",
    "ß ss SS sſ ẞ ﬆ st ﬁ ffi ﬃ ﬀi K k K", "é É e\u0301 ñ", "漢字 かな カナ ー 12 ٣٤ ² Ⅷ", "x_1-y.z [a] {a} a{,} a{ {a", "aaaa b aaa",
    "don't I'll WE'VE it's 'S", "🙂👍🏽 ❤️ ©", "\u00a0\u3000\u2028x\u200b\u180e", "ǅ ʰ ⅓ ‿ _ $ + € ` ^", "bcd\tx\x1b A C BB e & |-",
    "aXbXc Ω ω ſt", "()[]\\/", "a.b\na\nb", "aa aa", "  x"]


def published():
    from _published_chains import patterns
    return patterns()


def constructs():
    return [p.strip(" ") for p in CONSTRUCTS.strip("\n").replace("|\n", "| \n").replace("\n", " | ").split(" | ") if p.strip()]


class PatternGenerator:
    """Patterns of everything that a matcher may get wrong together."""

    SETS = ["a", "b", "c", "ab", ".", r"\w", r"\s", r"\S", r"\d", "[ab]", "[^a]", r"\p{L}", r"\p{Lu}", "[a-c&&[^b]]", "é",
            "[[:alpha:]]", r"[^\s\p{N}]", "x", " ", r"\n", "A"]
    # Without \A and \G: Oniguruma does not try them again in an empty repetition.
    ASSERTIONS = ["^", "$", r"\b", r"\B", r"\z", r"\Z"]

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.groups = 0

    def pattern(self):
        self.groups = 0
        return self.alternatives(3)

    def alternatives(self, depth):
        return "|".join(self.sequence(depth) for _ in range(self.random.choice([1, 1, 1, 2, 2, 3])))

    def sequence(self, depth):
        return "".join(self.element(depth) for _ in range(self.random.choice([0, 1, 1, 2, 2, 3])))

    def element(self, depth):
        pick = self.random.random()
        if pick < 0.07:
            return self.random.choice(self.ASSERTIONS)
        if pick < 0.15 and depth > 0:
            return self.random.choice(["(?=", "(?!", "(?<=", "(?<!"]) + self.plain(depth - 1) + ")"
        if pick < 0.17 and self.groups:
            return rf"\{self.random.randint(1, self.groups)}"
        atom = self.random.choice(self.SETS) if depth == 0 or pick < 0.7 else self.group(depth - 1)
        return atom + self.random.choice(
            ["", "", "", "", "*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,2}", "{0,2}?", "{2,}", "{,1}"])

    def plain(self, depth):
        """Without captures and back references, which look-behinds refuse."""
        return "|".join("".join(self.random.choice(self.SETS) for _ in range(self.random.choice([1, 1, 2])))
                        for _ in range(self.random.choice([1, 1, 2])))

    def group(self, depth):
        kind = self.random.choice(["(?:", "(?:", "(?:", "(", "(?>", "(?i:", "(?m:"])
        inside = self.alternatives(depth)
        if kind == "(":
            self.groups += 1
        return kind + inside + ")"


def write_records(path, records):
    with open(path, "wb") as out:
        for record in records:
            data = record.encode()
            out.write(struct.pack("<I", len(data)) + data)


def run_driver(patterns, texts, folder):
    """(report, for every pattern None when refused, or for every text its
    matches, None when it took too long)."""
    paths = [f"{folder}/{name}" for name in ("patterns", "texts", "results")]
    write_records(paths[0], patterns)
    write_records(paths[1], texts)
    done = subprocess.run([DRIVERS / "pattern_driver", *paths], check=True, stdout=subprocess.PIPE)
    with open(paths[2], "rb") as source:
        numbers = array.array("i", source.read())
    at, results = 0, []
    for _ in patterns:
        if numbers[at] == -1:
            results.append(None)
            at += 1
            continue
        found = []
        for _ in texts:
            count = numbers[at]
            ends = numbers[at + 1 : at + 1 + 2 * max(count, 0)]
            found.append(None if count < 0 else list(zip(ends[::2], ends[1::2])))
            at += 1 + len(ends)
        results.append(found)
    return json.loads(done.stdout), results
