"""Adapters through stock PEFT, both ways, on tiny-qwen3.5 in float32.

PEFT needs torch, which is large: an environment of its own, made by
scripts/setup --peft from tools/requirements-peft.txt.
"""

import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, MODEL, run, scratch, skip
from _trained_adapter import train_adapter
from tokenizers import Tokenizer

N_TOKENS = 64
BOUND = 1e-3  # largest difference of a logit
PYTHON = Path(os.environ["OPTIQ_GGUF_DIR"]).parent / "venv-peft" / "bin" / "python"


def tokens():
    text = (MODEL / "eval_arithmetic.jsonl").read_text()
    return Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(text).ids[:N_TOKENS]


def peft_logits(folder, verb, adapter, ids):
    (folder / "ids.json").write_text(json.dumps(ids))
    out = folder / f"{verb}.npy"
    side = Path(__file__).parent / "_peft_side.py"
    run(PYTHON, side, verb, MODEL, adapter, folder / "ids.json", out)
    return np.load(out)


def our_logits(folder, adapter, ids):
    save_file({"ids": np.array(ids, dtype=np.int32)}, folder / "ids.safetensors")
    out = folder / f"{adapter.name}.safetensors"
    run(DRIVERS / "adapter_driver", "logits", MODEL, adapter, folder / "ids.safetensors", out)
    return load_file(out)["logits"]


def compare(what, theirs, ours):
    difference = np.max(np.abs(theirs - ours))
    print(f"{what}: largest difference {difference:.2g}")
    assert difference <= BOUND


def main():
    if not PYTHON.exists():
        skip(f"no {PYTHON}: scripts/setup --peft makes it")
    ids = tokens()
    with scratch() as folder:
        folder = Path(folder)
        ours = folder / "ours"
        run(DRIVERS / "adapter_driver", "write", MODEL, ours, 1)
        compare("ours in PEFT", peft_logits(folder, "load", ours, ids), our_logits(folder, ours, ids))
        trained = train_adapter(folder)
        compare("trained, in PEFT", peft_logits(folder, "load", trained, ids), our_logits(folder, trained, ids))
        theirs = folder / "theirs"
        logits = peft_logits(folder, "make", theirs, ids)
        compare("PEFT's in ours", logits, our_logits(folder, theirs, ids))


main()
