"""Writes optiq/text/unicode_{tables,categories,scripts,case,property_tables}.cpp.

    pip install unicodedata2==16.0.0 tokenizers==0.23.3
    python tools/generate_unicode_tables.py optiq/text

The tokenizers of published models were trained with the Unicode data inside
huggingface/tokenizers, which is not of one version: its regex engine has
Unicode 16.0, `char::is_numeric` of its compiler 17.0, its NFC 9.0. The tables
follow it on every code point. Categories come from unicodedata2 16.0.0 and are
checked against the package; what no Python package knows at the right version
is asked from it, code point by code point.
"""

import os
import sys

import tokenizers
import unicodedata2 as ucd
from tokenizers import AddedToken, Regex, Tokenizer, models
from tokenizers import normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL_VOWELS_AND_TAILS = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))


def category(initial):
    return {c for c in CODE_POINTS if ucd.category(chr(c))[0] == initial}


def matched_by(pattern):
    """Code points that `pattern` matches in the package's regex engine."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    left = set()
    for at in range(0, len(CODE_POINTS), 4096):
        block = "".join(map(chr, CODE_POINTS[at : at + 4096]))
        for piece, _ in split.pre_tokenize_str(block):
            left.update(map(ord, piece))
    return set(CODE_POINTS) - left


def numeric():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CODE_POINTS if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3}


def word_characters():
    """Those that keep a single_word token from matching."""
    judge = Tokenizer(models.BPE(vocab={"\0": 0}, merges=[]))
    judge.add_tokens([AddedToken("<x>", single_word=True, normalized=False)])
    return {c for c in CODE_POINTS if 1 not in judge.encode(chr(c) + "<x>").ids}


def compositions():
    """(first, second, composed) of every primary composite."""
    for c in CODE_POINTS:
        parts = ucd.decomposition(chr(c))
        if not parts or parts.startswith("<") or " " not in parts:
            continue
        first, second = (int(p, 16) for p in parts.split())
        if ucd.normalize("NFC", chr(first) + chr(second)) == chr(c):
            yield first, second, c


def nfc_sets():
    """(marks, unstable, young).

    marks: combining class not 0. unstable: NFC may change it, alone or after
    its predecessor. young: the package's NFC does not know it yet.
    """
    nfc = normalizers.NFC().normalize_str
    marks = {c for c in CODE_POINTS if ucd.combining(chr(c))}
    unstable = {c for c in CODE_POINTS if ucd.normalize("NFC", chr(c)) != chr(c)}
    unstable |= HANGUL_VOWELS_AND_TAILS
    # U+0345 has the highest combining class, U+0334 the lowest: one of the two
    # changes places with every mark that is known to be one.
    young = {
        c for c in marks
        if nfc("q\u0345" + chr(c)) == "q\u0345" + chr(c) and nfc("q" + chr(c) + "\u0334") == "q" + chr(c) + "\u0334"
    }
    young |= {c for c in unstable if nfc(chr(c)) == chr(c)} - HANGUL_VOWELS_AND_TAILS
    old, new = set(), set()
    for first, second, composed in compositions():
        known = nfc(chr(first) + chr(second)) == chr(composed)
        (old if known else new).update((first, second, composed))
        if known:
            unstable.add(second)
    young |= new - old - (marks - young)
    return marks - young, unstable - young, young


def punctuation():
    split = pre_tokenizers.Punctuation("isolated")
    return {c for c in CODE_POINTS if len(split.pre_tokenize_str("a" + chr(c) + "a")) == 3}


def removed_by(normalizer, among):
    return {c for c in among if normalizer.normalize_str("q" + chr(c)) == "q"}


def bert(**parts):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **parts})


def compatibility_young(young):
    """What NFKC and NFKD of the package leave alone, beside what all forms do."""
    nfkd = normalizers.NFKD().normalize_str
    found = set()
    for c in map(chr, CODE_POINTS):
        if nfkd(c) != ucd.normalize("NFKD", c):
            assert nfkd(c) == c, hex(ord(c))
            found.add(ord(c))
    return found - young


def lower_rows():
    """(first, last, step, distance) of what the package's Lowercase changes."""
    lower = normalizers.Lowercase().normalize_str
    groups = []
    for c in CODE_POINTS:
        text = lower(chr(c))
        if text != chr(c) and c != 0x130:  # which becomes two characters
            groups.append((c, ord(text)))
    return case_rows_of_pairs(groups)


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, points):
    cells = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(points)]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 80:
            lines.append(line)
            line = "   "
        line += " " + cell
    lines.append(line)
    body = "\n".join(lines)
    return f"constexpr CodePointRange {name}[] = {{\n{body}\n}};\n"



CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()

# Unicode 16.0: name and four-letter name.
SCRIPTS = """Adlam Adlm Ahom Ahom Anatolian_Hieroglyphs Hluw Arabic Arab Armenian Armn Avestan Avst Balinese Bali
Bamum Bamu Bassa_Vah Bass Batak Batk Bengali Beng Bhaiksuki Bhks Bopomofo Bopo Brahmi Brah Braille Brai Buginese Bugi
Buhid Buhd Canadian_Aboriginal Cans Carian Cari Caucasian_Albanian Aghb Chakma Cakm Cham Cham Cherokee Cher Chorasmian
Chrs Common Zyyy Coptic Copt Cuneiform Xsux Cypriot Cprt Cypro_Minoan Cpmn Cyrillic Cyrl Deseret Dsrt Devanagari Deva
Dives_Akuru Diak Dogra Dogr Duployan Dupl Egyptian_Hieroglyphs Egyp Elbasan Elba Elymaic Elym Ethiopic Ethi Garay Gara
Georgian Geor Glagolitic Glag Gothic Goth Grantha Gran Greek Grek Gujarati Gujr Gunjala_Gondi Gong Gurmukhi Guru
Gurung_Khema Gukh Han Hani Hangul Hang Hanifi_Rohingya Rohg Hanunoo Hano Hatran Hatr Hebrew Hebr Hiragana Hira
Imperial_Aramaic Armi Inherited Zinh Inscriptional_Pahlavi Phli Inscriptional_Parthian Prti Javanese Java Kaithi Kthi
Kannada Knda Katakana Kana Kawi Kawi Kayah_Li Kali Kharoshthi Khar Khitan_Small_Script Kits Khmer Khmr Khojki Khoj
Khudawadi Sind Kirat_Rai Krai Lao Laoo Latin Latn Lepcha Lepc Limbu Limb Linear_A Lina Linear_B Linb Lisu Lisu Lycian
Lyci Lydian Lydi Mahajani Mahj Makasar Maka Malayalam Mlym Mandaic Mand Manichaean Mani Marchen Marc Masaram_Gondi Gonm
Medefaidrin Medf Meetei_Mayek Mtei Mende_Kikakui Mend Meroitic_Cursive Merc Meroitic_Hieroglyphs Mero Miao Plrd Modi
Modi Mongolian Mong Mro Mroo Multani Mult Myanmar Mymr Nabataean Nbat Nag_Mundari Nagm Nandinagari Nand New_Tai_Lue Talu
Newa Newa Nko Nkoo Nushu Nshu Nyiakeng_Puachue_Hmong Hmnp Ogham Ogam Ol_Chiki Olck Ol_Onal Onao Old_Hungarian Hung
Old_Italic Ital Old_North_Arabian Narb Old_Permic Perm Old_Persian Xpeo Old_Sogdian Sogo Old_South_Arabian Sarb
Old_Turkic Orkh Old_Uyghur Ougr Oriya Orya Osage Osge Osmanya Osma Pahawh_Hmong Hmng Palmyrene Palm Pau_Cin_Hau Pauc
Phags_Pa Phag Phoenician Phnx Psalter_Pahlavi Phlp Rejang Rjng Runic Runr Samaritan Samr Saurashtra Saur Sharada Shrd
Shavian Shaw Siddham Sidd SignWriting Sgnw Sinhala Sinh Sogdian Sogd Sora_Sompeng Sora Soyombo Soyo Sundanese Sund
Sunuwar Sunu Syloti_Nagri Sylo Syriac Syrc Tagalog Tglg Tagbanwa Tagb Tai_Le Tale Tai_Tham Lana Tai_Viet Tavt Takri Takr
Tamil Taml Tangsa Tnsa Tangut Tang Telugu Telu Thaana Thaa Thai Thai Tibetan Tibt Tifinagh Tfng Tirhuta Tirh Todhri Todr
Toto Toto Tulu_Tigalari Tutg Ugaritic Ugar Vai Vaii Vithkuqi Vith Wancho Wcho Warang_Citi Wara Yezidi Yezi Yi Yiii
Zanabazar_Square Zanb""".split()

# What is not made of categories; the rest of the regex engine's properties has
# no use in tokenizers.
PROPERTIES = """Other_Alphabetic Other_Lowercase Other_Uppercase White_Space Ideographic Unified_Ideograph Emoji Emoji_Component
Emoji_Modifier Emoji_Modifier_Base Emoji_Presentation Extended_Pictographic""".split()


def runs(value_of):
    """(first code point, value) of every run of equal values."""
    out = []
    for c in range(0x110000):
        value = value_of(c)
        if not out or out[-1][1] != value:
            out.append((c, value))
    return out


def numbers(name, kind, values):
    lines, line = [], "   "
    for value in values:
        cell = f" {value},"
        if len(line) + len(cell) > 80:
            lines.append(line)
            line = "   "
        line += cell
    lines.append(line)
    body = "\n".join(lines)
    return f"constexpr {kind} {name}[] = {{\n{body}\n}};\n"


def packed_runs(name, value_of):
    return numbers(name, "std::uint32_t", (f"0x{c << 8 | value:X}" for c, value in runs(value_of)))


def write_file(folder, name, parts, functions):
    head = (
        "// Generated by tools/generate_unicode_tables.py. Do not edit.\n"
        "// clang-format off\n"
        '#include "optiq/text/unicode_tables.h"\n\n'
        "namespace optiq::text {\nnamespace {\n"
    )
    with open(os.path.join(folder, name), "w") as out:
        out.write("\n".join([head, *parts, "} // namespace\n", *functions, "} // namespace optiq::text"]) + "\n")


def write_categories(folder):
    index = {name: i for i, name in enumerate(CATEGORIES)}
    by_code_point = [index["Cs" if 0xD800 <= c < 0xE000 else ucd.category(chr(c))] for c in range(0x110000)]
    for name, i in index.items():
        if name != "Cs":
            known = {c for c in CODE_POINTS if by_code_point[c] == i}
            assert matched_by(rf"\p{{{name}}}") == known, name
    write_file(
        folder, "unicode_categories.cpp", [packed_runs("kCategories", by_code_point.__getitem__)],
        ["std::span<const std::uint32_t> unicode_categories() {\n  return kCategories;\n}\n"])


def cutting_scripts(script, names):
    """(first, last, script) where the pre-tokenizer UnicodeScripts has another
    script than the regex engine; the number behind the last name is no script."""
    cut = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    none = len(names)
    kana = {names.index("Hiragana"), names.index("Katakana")}
    guess = [names.index("Han") if s in kana or c == 0x30FC else s for c, s in enumerate(script)]
    guess[ord(" ")] = none
    samples = {}
    for c in CODE_POINTS:
        if guess[c] != none and len(cut(chr(c))) == 1:
            samples.setdefault(guess[c], chr(c))

    def joins(s, c):
        return len(cut(samples[s] + chr(c))) == 1

    latin, greek = names.index("Latin"), names.index("Greek")
    found = []
    for c in CODE_POINTS:
        goes_with_all = joins(latin, c) and joins(greek, c)
        if goes_with_all:
            actual = none
        elif guess[c] in samples and joins(guess[c], c):
            actual = guess[c]
        else:
            actual = next(s for s in samples if joins(s, c))
        if actual != guess[c]:
            if found and found[-1][1] == c - 1 and found[-1][2] == actual:
                found[-1][1] = c
            else:
                found.append([c, c, actual])
    return found


def write_scripts(folder):
    names, codes = SCRIPTS[::2], SCRIPTS[1::2]
    script = [len(names)] * 0x110000  # unassigned
    for i, name in enumerate(names):
        for c in matched_by(rf"\p{{{name}}}"):
            script[c] = i
    changes = [f"{{0x{a:X}, 0x{b:X}, {s}}}" for a, b, s in cutting_scripts(script, names)]
    rows = ["constexpr ScriptName kNames[] = {"]
    rows += [f'    {{"{name}", "{code}"}},' for name, code in zip(names, codes)]
    write_file(
        folder, "unicode_scripts.cpp",
        [packed_runs("kScripts", script.__getitem__), "\n".join(rows + ["};\n"]),
         numbers("kCuttingScripts", "ScriptRange", changes)],
        ["std::span<const std::uint32_t> unicode_scripts() {\n  return kScripts;\n}\n",
         "std::span<const ScriptName> unicode_script_names() {\n  return kNames;\n}\n",
         "std::span<const ScriptRange> unicode_cutting_scripts() {\n  return kCuttingScripts;\n}\n"])


def escape(c):
    return f"\\x{{{ord(c):x}}}"


def case_sets():
    """(groups of code points that are equal in any case, {text of several
    characters: code points equal to it})."""
    candidates = [c for c in map(chr, CODE_POINTS) if ucd.category(c) in ("Lu", "Ll", "Lt", "Lm", "Mn", "Nl", "So")
                  or c.casefold() != c or c.upper() != c]
    text = "\n".join(candidates)  # apart, so that none of "st" is found as one
    groups = set()
    for c in candidates:
        if ucd.category(c) in ("Lm", "Mn", "So", "Nl") and c.casefold() == c and c.upper() == c:
            continue
        split = pre_tokenizers.Split(Regex(f"(?i:{escape(c)})"), "removed")
        left = set("".join(piece for piece, _ in split.pre_tokenize_str(text)))
        equal = frozenset(set(candidates) - left)
        if len(equal) > 1:
            groups.add(tuple(sorted(map(ord, equal))))
    several = {}
    for c in map(chr, CODE_POINTS):
        folded = c.casefold()
        if len(folded) > 1:
            split = pre_tokenizers.Split(Regex(f"(?i:{''.join(map(escape, folded))})"), "removed")
            assert not split.pre_tokenize_str(c), hex(ord(c))
            several.setdefault(folded, []).append(ord(c))
    return sorted(groups), several


def case_rows(groups):
    """(first, last, step, other - first) of pairs; rows of lower distance
    first, so that most groups are runs."""
    return case_rows_of_pairs((a, b) for group in groups for a in group for b in group if a != b)


def case_rows_of_pairs(pairs):
    pairs = sorted(pairs)
    left, rows = set(pairs), []
    for first, other in pairs:
        if (first, other) not in left:
            continue
        best = [first]
        for step in (1, 2):
            run = [first]
            while (run[-1] + step, run[-1] + step + other - first) in left:
                run.append(run[-1] + step)
            if len(run) > len(best):
                best, best_step = run, step
        if len(best) == 1:
            best_step = 1
        left -= {(c, c + other - first) for c in best}
        rows.append((best[0], best[-1], best_step, other - first))
    return rows


def write_case(folder):
    groups, several = case_sets()
    rows = [f"{{0x{a:X}, 0x{b:X}, {step}, {delta}}}" for a, b, step, delta in case_rows(groups)]
    folds = [f"{{U\"{''.join(f'{chr(92)}U{ord(c):08X}' for c in text)}\", 0x{c:X}}}"
             for text, code_points in sorted(several.items()) for c in code_points]
    parts = [numbers("kCaseRuns", "CaseRun", rows), numbers("kLongFolds", "LongFold", folds)]
    lower = [f"{{0x{a:X}, 0x{b:X}, {step}, {distance}}}" for a, b, step, distance in lower_rows()]
    parts.append(numbers("kLowerRuns", "CaseRun", lower))
    functions = ["std::span<const CaseRun> unicode_lower_runs() {\n  return kLowerRuns;\n}\n",
                 "std::span<const CaseRun> unicode_case_runs() {\n  return kCaseRuns;\n}\n",
                 "std::span<const LongFold> unicode_long_folds() {\n  return kLongFolds;\n}\n"]
    write_file(folder, "unicode_case.cpp", parts, functions)


def write_properties(folder):
    parts, rows = [], []
    for name in PROPERTIES:
        constant = "k" + name.replace("_", "")
        parts.append(table(constant, matched_by(rf"\p{{{name}}}")))
        rows.append(f'    {{"{name}", {constant}}},')
    for whole, categories in (("Alphabetic", ("L", "Nl")), ("Lowercase", ("Ll",)), ("Uppercase", ("Lu",))):
        union = "".join(rf"\p{{{name}}}" for name in (*categories, "Other_" + whole))
        assert matched_by(f"[{union}]") == matched_by(rf"\p{{{whole}}}"), whole
    parts.append("\n".join(["constexpr UnicodeProperty kProperties[] = {", *rows, "};\n"]))
    write_file(folder, "unicode_property_tables.cpp", parts, [
        "std::span<const UnicodeProperty> unicode_properties() {\n  return kProperties;\n}\n"])


def main():
    assert ucd.unidata_version == "16.0.0", ucd.unidata_version
    assert tokenizers.__version__ == "0.23.3", tokenizers.__version__
    letter, number, mark = category("L"), category("N"), category("M")
    write_categories(sys.argv[1])
    write_scripts(sys.argv[1])
    write_case(sys.argv[1])
    write_properties(sys.argv[1])
    nfc_marks, nfc_unstable, nfc_young = nfc_sets()
    stable_marks = {c for c in mark if ucd.normalize("NFD", chr(c)) == chr(c)}
    unassigned = {c for c in CODE_POINTS if ucd.category(chr(c)) == "Cn"}
    nonspacing = {c for c in stable_marks if ucd.category(chr(c)) == "Mn"}
    tables = {
        "NumericDiffers": numeric() ^ number,
        "WordDiffers": word_characters() ^ (letter | number | mark),
        "PunctuationDiffers": punctuation() ^ category("P"),
        "BertControlDiffers": removed_by(bert(clean_text=True), CODE_POINTS) ^ (category("C") - unassigned),
        "BertAccentDiffers": removed_by(bert(strip_accents=True), stable_marks) ^ nonspacing,
        "AccentDiffers": removed_by(normalizers.StripAccents(), CODE_POINTS) ^ mark,
        "NfcMark": nfc_marks,
        "NfcUnstable": nfc_unstable,
        "NfcYoung": nfc_young,
        "CompatibilityYoung": compatibility_young(nfc_young),
    }
    write_file(
        sys.argv[1], "unicode_tables.cpp", [table("k" + name, points) for name, points in tables.items()],
        ["UnicodeTables unicode_tables() {\n  return {\n" + "".join(f"      k{name},\n" for name in tables) + "  };\n}\n"])
    for name, points in tables.items():
        print(name, len(points), "code points,", len(ranges(points)), "ranges")


if __name__ == "__main__":
    main()
