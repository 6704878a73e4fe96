"""The chains of published tokenizers, as their tokenizer.json (or, where there
is none, the model's own code) has them: rows of data. Patterns and types only;
vocabularies are trained on generated text."""

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}|{REST}"
QWEN35 = (rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
          r"\s+(?!\S)|\s")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*"
         rf"{CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*|\p{{N}}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER_NOT_HAN, LOWER_NOT_HAN = UPPER + r"&&[^\p{Han}]", LOWER + r"&&[^\p{Han}]"
KIMI = (rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER_NOT_HAN}]*[{LOWER_NOT_HAN}]+{CONTRACTIONS}?|"
        rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER_NOT_HAN}]+[{LOWER_NOT_HAN}]*{CONTRACTIONS}?|\p{{N}}{{1,3}}|{REST}")
DEEPSEEK_LETTERS = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ"
    r"\u1FBEῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+")
DEEPSEEK_V3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
               r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
SEED = (rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+")
BAILING = (r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
           r"\s*[\r\n]|\s+(?!\S)|\s+")


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(use_regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def digits(individual):
    return {"type": "Digits", "individual_digits": individual}


def chain(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def byte_rule(pattern):
    return chain(split(pattern), byte_level())


def normalizers(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


NFC, NFKC = {"type": "NFC"}, {"type": "NFKC"}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREFIX = {"type": "Prepend", "prepend": "▁"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
PIECES = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
PIECES_STRIPPED = {"type": "Sequence", "decoders": [
    *PIECES["decoders"], {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
METASPACE_FIRST = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
CHAMELEON = [
    r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]"]

# (name, model, normalizer, pre-tokenizer, decoder). Models: "bytes" and
# "merges" (ignore_merges) are byte-level BPE, "pieces" BPE with byte fallback,
# "unigram", "wordpiece".
CHAINS = [
    ("GPT-2", "bytes", None, byte_level(True), BYTES),
    ("GPT-NeoX, OLMo", "bytes", NFC, byte_level(True), BYTES),
    ("RoBERTa", "bytes", None, byte_level(True, True), BYTES),
    ("cl100k", "bytes", None, byte_rule(CL100K), BYTES),
    ("o200k, GPT-OSS", "merges", None, byte_rule(O200K), BYTES),
    ("Llama 2", "pieces", normalizers(PREFIX, SPACES), None, PIECES_STRIPPED),
    ("Llama 3, OLMo 2, SmolLM3", "merges", None, byte_rule(LLAMA3), BYTES),
    ("Mistral 7B v0.3", "pieces", None, METASPACE_FIRST, PIECES_STRIPPED),
    ("Mistral Nemo (Tekken)", "merges", None, byte_rule(TEKKEN), BYTES),
    ("Qwen 2, Qwen 3", "bytes", NFC, byte_rule(QWEN2), BYTES),
    ("Qwen 3.5", "bytes", NFC, byte_rule(QWEN35), BYTES),
    ("DeepSeek Coder", "bytes", None, chain(
        split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), digits(True), byte_level()),
     BYTES),
    ("DeepSeek LLM, v2", "bytes", None, chain(
        split(r"[\r\n]"), split(DEEPSEEK_LETTERS), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"), digits(True), byte_level()), BYTES),
    ("DeepSeek v3", "bytes", None, chain(
        split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), byte_level()), BYTES),
    ("Command-R", "bytes", NFC, chain(digits(True), byte_level(True)), BYTES),
    ("Falcon", "bytes", None, chain(
        {"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True), digits(False), split("[0-9][0-9][0-9]")), BYTES),
    ("StarCoder, SmolLM, Granite", "bytes", None, chain(digits(True), byte_level(True)), BYTES),
    ("BLOOM", "bytes", None, chain(split(BLOOM), byte_level()), BYTES),
    ("Viking, Poro", "bytes", None, chain(split(BLOOM), split(r"\p{N}"), byte_level()), BYTES),
    ("Phi-4", "bytes", None, byte_rule(CL100K.replace("++", "+").replace("+|", "|", 1)), BYTES),
    ("Phi-3", "pieces", normalizers(PREFIX, SPACES), None, PIECES_STRIPPED),
    ("Gemma", "pieces", SPACES, split(" ", "MergedWithPrevious", kind="String"), PIECES),
    ("T5", "unigram", None, METASPACE, METASPACE),
    ("XLM-RoBERTa", "unigram", NFKC, chain({"type": "WhitespaceSplit"}, METASPACE), METASPACE),
    ("GLM-4", "bytes", None, byte_rule(LLAMA3), BYTES),
    ("Kimi K2", "bytes", None, byte_rule(KIMI), BYTES),
    ("ERNIE 4.5", "pieces", SPACES, None, PIECES),
    ("Seed-Coder", "bytes", None, byte_rule(SEED), BYTES),
    ("Ling", "bytes", None, byte_rule(BAILING), BYTES),
    ("SuperBPE", "bytes", None, chain(split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), byte_level()), BYTES),
    ("Chameleon", "bytes", None, chain(*map(split, CHAMELEON), byte_level(True)), BYTES),
    ("BERT", "wordpiece", BERT, {"type": "BertPreTokenizer"}, {"type": "Fuse"}),
]


def patterns():
    """Every regular expression in the rows."""
    found = []

    def visit(value):
        if isinstance(value, dict):
            if "Regex" in value:
                found.append(value["Regex"])
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                visit(part)

    visit([list(row[2:]) for row in CHAINS])
    return list(dict.fromkeys([GPT2, *found]))
