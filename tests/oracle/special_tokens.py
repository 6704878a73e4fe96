"""What counts as special, against PyPI transformers' AutoTokenizer.

Folders are made with tokens named in every combination of places, differently
in each: roles, ids, plain and chat encodings must be the same, and what a
decoder that skips special tokens leaves out. Then the keys of
generation_config.json: every one that transformers knows has a place in our
table.
"""

import json
import os
import random
import subprocess
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, GenerationConfig

from _support import DRIVERS, scratch

DRIVER = DRIVERS / "special_tokens_driver"
N_FOLDERS = 160
ROLES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
# Of the vocabulary ("ab", "cd"), of its added tokens, and new.
TOKENS = ["ab", "cd", "<s>", "</s>", "<pad>", "<eot>", "<x>", "<y>", "<new one>", "[NEW]"]
TEXTS = ["ab<s>cd </s>  x", "<pad> <eot><x> <y>\n<new one>[NEW]ab", "  <x>  <y>  ", "plain"]
TEMPLATE = ("{% for m in messages %}" + "".join(f"{{{{ {r} }}}}|" for r in ROLES + ["image_token"]) +
            "{{ m.content }}{% endfor %}<eot>")


def letters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 256
    for byte in range(256):
        table[byte] = chr(byte) if byte in keep else chr(extra)
        extra += byte not in keep
    return table


def added(pick, content, number):
    return {"id": number, "content": content, "single_word": False, "lstrip": pick(False, False, True),
            "rstrip": pick(False, False, True), "normalized": False, "special": pick(True, True, False)}


def tokenizer_json(pick):
    vocab = {letter: byte for byte, letter in letters().items()}
    vocab |= {"ab": 256, "cd": 257}
    contents = [t for t in TOKENS[2:8] if pick(True, False)]
    tokens = [added(pick, content, 258 + i) for i, content in enumerate(contents)]
    post = None
    if "<s>" in contents and pick(True, False):
        piece = {"id": "<s>", "ids": [258 + contents.index("<s>")], "tokens": ["<s>"]}
        post = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": piece}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": post, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                      "merges": [["a", "b"], ["c", "d"]]}}


def flags(pick, **more):
    return {"lstrip": pick(False, True), "rstrip": pick(False, True), "normalized": False, "single_word": False, **more}


def token(pick, content, typed):
    """Text, or an object: of tokenizer_config.json with its type."""
    if pick(True, False):
        return content
    return {**({"__type": "AddedToken"} if typed else {}), "content": content, **flags(pick)}


def roles(pick, typed):
    return {role: token(pick, pick(*TOKENS), typed) for role in ROLES if pick(True, False, False)}


def write(folder, pick):
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = tokenizer_json(pick)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **roles(pick, True)}
    if pick(True, False):
        config["add_bos_token"] = pick(True, False)
    if pick(True, False, False):
        config["image_token"] = pick(*TOKENS)
    extra = pick(None, "extra_special_tokens", "additional_special_tokens")
    if extra:
        config[extra] = [pick(*TOKENS) for _ in range(pick(0, 1, 2))]
    elif pick(True, False, False):
        config["extra_special_tokens"] = {"video_token": pick(*TOKENS)}
    if pick(True, False):
        # Ids as in tokenizer.json, and new ones behind them.
        contents = [t["content"] for t in tokenizer["added_tokens"]]
        contents += [t for t in TOKENS[2:] if t not in contents and pick(True, False)]
        config["added_tokens_decoder"] = {
            str(258 + i): {"content": c, **flags(pick, special=pick(True, False))}
            for i, c in enumerate(contents) if pick(True, True, False)}
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
    if pick(True, False):
        files["special_tokens_map.json"] = roles(pick, False)
        if pick(True, False):
            files["special_tokens_map.json"]["additional_special_tokens"] = [pick(*TOKENS)]
    if pick(True, False, False):
        known = {t["content"] for t in tokenizer["added_tokens"]}
        new = [t for t in TOKENS[2:] if t not in known]
        files["added_tokens.json"] = {t: 258 + len(known) + i for i, t in enumerate(new)}
    if pick(True, False, False):
        del files["tokenizer_config.json"]
    place = pick("file", "config", "list", "folder")
    if place == "file" or "tokenizer_config.json" not in files:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
        config["chat_template"] = "another"
    elif place == "list":
        config["chat_template"] = [{"name": "rag", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    elif place == "config":
        config["chat_template"] = TEMPLATE
    else:
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "rag.jinja").write_text("no")
        (folder / "additional_chat_templates" / "default.jinja").write_text(TEMPLATE)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))


MESSAGES = [{"role": "user", "content": "ab <s>", "tool_calls": None}]


def wanted(folder):
    judge = AutoTokenizer.from_pretrained(folder)
    ids = [judge.encode(t, add_special_tokens=add) for t in TEXTS for add in (False, True)]
    named = {r: [t, judge.convert_tokens_to_ids(t)] for r, t in judge.special_tokens_map.items()}
    backend = judge.backend_tokenizer
    special = [i for i in range(backend.get_vocab_size(with_added_tokens=True))
               if backend.decode([i], skip_special_tokens=False) and not backend.decode([i], skip_special_tokens=True)]
    chat = judge.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    return {"ids": ids, "roles": named, "special": special, "chat": chat}


def ask(folders):
    """Our answers, one a folder."""
    requests = "".join(
        json.dumps({"folder": str(f), "texts": TEXTS, "messages": MESSAGES}) + "\n" for f in folders)
    out = subprocess.run([DRIVER], input=requests, text=True, stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def check_folders(root):
    folders = []
    for seed in range(N_FOLDERS):
        dice = random.Random(seed)
        folders.append(root / str(seed))
        folders[-1].mkdir()
        write(folders[-1], lambda *choices: dice.choice(choices))
    bad = 0
    for folder, ours in zip(folders, ask(folders), strict=True):
        theirs = wanted(folder)
        if ours != theirs:
            bad += 1
            if bad <= 3:
                for key in theirs:
                    if ours.get(key) != theirs[key]:
                        print(f"{folder.name}: {key}:\n  ours   {ours.get(key, ours)}\n  theirs {theirs[key]}")
                for name in sorted(os.listdir(folder)):
                    if name.endswith(".json"):
                        content = json.loads((folder / name).read_text())
                        print(" ", name, json.dumps(content.get("added_tokens", content)))
    print(f"{N_FOLDERS} folders, {bad} differ", flush=True)
    return bad


CLASSES = ["LlamaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer",
           "CohereTokenizer", "PreTrainedTokenizerFast"]


def check_classes(root):
    """Roles that a class fills, where the files name one of them alone."""
    folders = [root / name for name in CLASSES]
    for folder, name in zip(folders, CLASSES):
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "<unk>": 1, "<pad>": 2}, merges=[]))
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "eos_token": "a"}))
        (folder / "chat_template.jinja").write_text("")
    for folder, ours in zip(folders, ask(folders), strict=True):
        judge = AutoTokenizer.from_pretrained(folder)
        texts = {role: text for role, (text, _) in ours["roles"].items()}
        assert texts == judge.special_tokens_map, (folder.name, ours, judge.special_tokens_map)
    print(f"{len(CLASSES)} classes of tokenizers, the same roles", flush=True)


def check_keys():
    ours = json.loads(subprocess.run([DRIVER, "keys"], stdout=subprocess.PIPE, check=True).stdout)
    theirs = {key for key in vars(GenerationConfig()) if not key.startswith("_")}
    assert theirs <= set(ours), f"without a row: {sorted(theirs - set(ours))}"
    beyond = {"presence_penalty", "frequency_penalty"}
    assert set(ours) - theirs <= beyond, f"unknown to transformers: {sorted(set(ours) - theirs - beyond)}"
    print(f"{len(theirs)} keys of generation_config.json, each with a row", flush=True)


def main():
    check_keys()
    with scratch() as folder:
        check_classes(Path(folder))
        assert check_folders(Path(folder)) == 0


main()
