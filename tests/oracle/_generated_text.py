"""Text in many scripts, the same on every run: words of random code points,
punctuation, blanks, newlines, digits, contractions, marks, emoji."""

import random
import unicodedata

SCRIPTS = {
    "latin": [(0x41, 0x5A), (0x61, 0x7A), (0x61, 0x7A), (0x61, 0x7A)],
    "latin extended": [(0xC0, 0x24F), (0x1E00, 0x1EFF)],
    "greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "cyrillic": [(0x400, 0x52F)],
    "armenian": [(0x531, 0x58A)],
    "hebrew": [(0x591, 0x5F4)],
    "arabic": [(0x600, 0x6FF), (0x750, 0x77F)],
    "syriac": [(0x700, 0x74F)],
    "devanagari": [(0x900, 0x97F)],
    "bengali": [(0x980, 0x9FE)],
    "gurmukhi": [(0xA01, 0xA76)],
    "tamil": [(0xB82, 0xBFA)],
    "telugu": [(0xC00, 0xC7F)],
    "malayalam": [(0xD00, 0xD7F)],
    "thai": [(0xE01, 0xE5B)],
    "lao": [(0xE81, 0xEDF)],
    "tibetan": [(0xF00, 0xFDA)],
    "myanmar": [(0x1000, 0x109F)],
    "georgian": [(0x10A0, 0x10FF)],
    "hangul": [(0xAC00, 0xD7A3)],
    "hangul jamo": [(0x1100, 0x11FF)],
    "ethiopic": [(0x1200, 0x139F)],
    "cherokee": [(0x13A0, 0x13FD)],
    "khmer": [(0x1780, 0x17F9)],
    "mongolian": [(0x1800, 0x18AA)],
    "hiragana": [(0x3041, 0x309F)],
    "katakana": [(0x30A0, 0x30FF), (0xFF66, 0xFF9D)],
    "han": [(0x4E00, 0x9FFF), (0x20000, 0x2A6DF), (0xF900, 0xFA6D)],
    "gothic": [(0x10330, 0x1034A)],
    "deseret": [(0x10400, 0x1044F)],
    "brahmi": [(0x11000, 0x11075)],
    "cuneiform": [(0x12000, 0x12399)],
    "mathematical": [(0x1D400, 0x1D7FF)],
}
PUNCTUATION = ".,;:!?'\"()[]{}<>-_/\\|@#$%^&*+=~`…—–«»“”‘’¿¡。、，！？「」・٪؟।"
BLANKS = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\r", "\u00a0", "\u3000", "\u2028",
          " \r\n\n ", "\u180e", "\u200b", "\x0b", "\x1f"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'ſ", "'vé", "’s", "'"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "☃️", "1️⃣", "©"]
NUMBERS = [(0x30, 0x39), (0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0x2160, 0x2188), (0xB2, 0xB3), (0x2460, 0x249B),
           (0x1D7CE, 0x1D7FF)]
MARKS = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x655), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0xFE20, 0xFE2F)]


ENGLISH = """the a of and to in is was for on with that it as he she they his her apples oranges boxes each day week
gives buys sells how many more than left total answer question Tom Anna Lee price dollars twice half together number
let us think step by so we get first then after before there are were will would could about which when running
walked tokenization unbelievable international counted remaining altogether""".split()


class Generator:
    def __init__(self, seed, specials=()):
        # Words that come back, the same for every seed, so that training on
        # one text makes merges that apply to the others.
        self.random = random.Random(0)
        self.lexicon = {name: [self.random_word(r) for _ in range(60)] for name, r in SCRIPTS.items()}
        self.lexicon["latin"] += 3 * ENGLISH
        self.random = random.Random(seed)
        self.specials = list(specials)

    def character(self, ranges):
        return chr(self.random.randint(*self.random.choice(ranges)))

    def word(self, script):
        if self.random.random() < 0.6:
            return self.random.choice(self.lexicon[script])
        return self.random_word(SCRIPTS[script])

    def random_word(self, ranges):
        pick = self.random.random()
        length = 1 + int(self.random.expovariate(0.25))
        if pick < 0.05:
            length *= 10
        text = "".join(self.character(ranges) for _ in range(length))
        if pick > 0.93:
            text = unicodedata.normalize("NFD", text)
        if 0.9 < pick < 0.93:
            marks = self.random.randint(1, 6)
            text += "".join(self.character(MARKS) for _ in range(marks))
        return text

    def item(self, script):
        pick = self.random.random()
        if pick < 0.66:
            return self.word(script)
        if pick < 0.76:
            return self.random.choice(PUNCTUATION) * self.random.choice([1, 1, 1, 2, 5])
        if pick < 0.84:
            return "".join(self.character(NUMBERS) for _ in range(self.random.randint(1, 8)))
        if pick < 0.88:
            return self.word(script) + self.random.choice(CONTRACTIONS)
        if pick < 0.91:
            return self.random.choice(EMOJI)
        if pick < 0.94 and self.specials:
            return self.random.choice(self.specials)
        return chr(self.random.choice([self.random.randint(0, 0xD7FF), self.random.randint(0xE000, 0x10FFFF)]))

    def text(self, characters):
        """About so many characters, mostly of one script."""
        script = self.random.choice([*SCRIPTS, *["latin"] * 10])
        parts, size = [], 0
        while size < characters:
            part = self.item(script)
            if self.random.random() < 0.7:
                part += self.random.choice(BLANKS)
            parts.append(part)
            size += len(part)
        return "".join(parts)

    def texts(self, total_bytes):
        out, size = [], 0
        while size < total_bytes:
            out.append(self.text(self.random.choice([3, 20, 200, 2000])))
            size += len(out[-1].encode())
        return out


def every_code_point():
    """Each code point alone, between letters and after a blank; those below
    U+3000 and in the blocks with cased letters after an apostrophe too, where
    contractions are looked for. Newlines keep the cases apart."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    cased = [chr(c) for c in [*range(0x3000), *range(0xA640, 0xABC0), *range(0xFB00, 0xFFFF)]]
    texts = []
    for form, members in (("{0}\nx{0}y {0}\n", points), ("'{0}\n'{0}e\n'l{0}\n", cased)):
        for at in range(0, len(members), 512):
            texts.append("".join(form.format(c) for c in members[at : at + 512]))
    return texts
