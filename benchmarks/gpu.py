#!/usr/bin/env python3
"""One table of what a card does with models of known shapes at random weights
(gpu_models.py), beside what it can read: gpu.py FOLDER OPTIQ..., where OPTIQ is
the command (pack/run optiq) and FOLDER keeps the models (18 GB)."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_models import write_model

SHORT = {"prompt": 64}
# Shape, bits, what is measured, options of `optiq bench`.
CASES = [
    ("llama-8b", 4, "fast", {}),
    ("llama-8b", 4, "exact", {"compute": "exact"}),
    ("llama-8b", 8, "fast", {}),
    ("llama-8b", 4, "8 sequences", {**SHORT, "batch": 8}),
    ("llama-8b", 4, "32 sequences", {**SHORT, "batch": 32}),
    ("llama-8b", 4, "behind 8192 tokens", {**SHORT, "context": 8192}),
    ("llama-8b", 4, "behind 8192 tokens, K/V of 4 bits", {**SHORT, "context": 8192, "kv-bits": 4}),
    ("llama-8b", 4, "behind 32768 tokens, K/V of 4 bits", {**SHORT, "context": 32768, "kv-bits": 4}),
    ("qwen3.5-9b", 4, "fast", {}),
    ("qwen3.5-0.8b", 4, "fast", {}),
]


def model_of(folder, shape, bits):
    model = folder / f"{shape}-{bits}bit"
    if not (model / "tokenizer.json").exists():  # which is written last
        write_model(shape, model, bits)
    return model


def measured(optiq, model, options):
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        options = {"prompt": 2048, "gen": 64, "repeats": 3, "device": "cuda", "json": result.name, **options}
        flags = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [str(word) for word in (*optiq, "bench", model, *flags)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(result.name).read_text())


def spread(result, name):
    low, high = result[name + "_spread"]
    return (high - low) / result[name + "_tokens_per_second"]


def main():
    folder, optiq = Path(sys.argv[1]), sys.argv[2:]
    doctor = subprocess.run([*optiq, "doctor"], capture_output=True, text=True, check=True).stdout
    print(*(line for line in doctor.splitlines() if line.startswith("card")), sep="\n")
    reads = float(re.search(r"cuda:0 reads (\d+) GB/s", doctor).group(1)) * 1e9
    print(f"{'':48} {'prefill':>9} {'decode':>9} {'spread':>7} {'of reads':>8}  KL to exact")
    for shape, bits, what, options in CASES:
        result = measured(optiq, model_of(folder, shape, bits), options)
        decode = result["decode_tokens_per_second"]
        widest = max(spread(result, "prefill"), spread(result, "decode"))
        kl = f"{result['kl_to_exact']:.1e}" if "kl_to_exact" in result else ""
        print(f"{f'{shape}, {bits} bits, {what}':48} {result['prefill_tokens_per_second']:9.0f} {decode:9.0f} "
              f"{widest:7.1%} {decode * result['bytes_per_token'] / reads:8.0%}  {kl}", flush=True)  # fmt: skip


main()
