"""Every GGUF architecture, from the same weights as a Hugging Face directory:
the same logits. The directories are compared with mlx-lm by family_parity.py."""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType
from safetensors.numpy import load_file, save_file

from _families import BOUND, make_model
from _family_cases import VOCABULARY, all_cases
from _gguf_families import write_gguf
from _support import DRIVERS, mean_kl, run, scratch

# (case of _family_cases, architecture, type of the matrices)
CASES = [
    ("llama, untied, MQA, H / heads", "llama", None),
    ("llama, one KV head per head, linear rope", "llama", None),
    ("llama, biases everywhere", "llama", None),
    ("llama, yarn", "llama", None),
    ("llama, biases, 4 bits", "llama", GGMLQuantizationType.Q8_0),
    ("qwen2, tied", "qwen2", None),
    ("qwen2, untied, yarn", "qwen2", None),
    ("qwen3, tied", "qwen3", None),
    ("phi3, untied", "phi3", None),
    ("phi3, tied, longrope on three quarters of a head", "phi3", None),
    ("phi3, 4 bits", "phi3", GGMLQuantizationType.Q4_0),
    ("smollm3, tied", "smollm3", None),
    ("granite, tied", "granite", None),
    ("granite, untied, biases", "granite", None),
    ("olmo2, untied", "olmo2", None),
    ("olmo3, untied", "olmo2", None),
    ("olmo3, yarn in the layers that see all", "olmo2", None),
    ("gemma2, tied", "gemma2", None),
    ("gemma3_text, tied", "gemma3", None),
    ("glm4, untied", "glm4", None),
    ("glm4, no biases, whole heads", "glm4", None),
    ("cohere2, tied", "cohere2", None),
    ("ministral3, tied", "mistral3", None),
    ("mistral", "mistral3", None),
]
# What the files cannot say, as llama.cpp has it.
FIXED = {
    "gemma2": dict(query_pre_attn_scalar=32),
    "gemma3": dict(query_pre_attn_scalar=32, num_hidden_layers=7, sliding_window_pattern=6),
    "cohere2": dict(sliding_window_pattern=4),
}


def logits(model, folder):
    out = folder / f"{model.name}.logits.safetensors"
    run(DRIVERS / "logits_driver", model, folder / "ids.safetensors", 100, "exact", out)
    return load_file(out)["ids"]


def compare(name, module, config, architecture, quantized, folder):
    mx.random.seed(9)
    config = dict(config, **FIXED.get(architecture, {}))
    make_model(module, config, None, folder / "model")
    ids = np.random.default_rng(9).integers(0, VOCABULARY, 200, dtype=np.int32)
    save_file({"ids": ids}, folder / "ids.safetensors")
    weights = folder / "model" / "model.safetensors"
    held = write_gguf(folder / "model.gguf", architecture, config, load_file(weights), quantized)
    save_file({k: np.ascontiguousarray(v) for k, v in held.items()}, weights)
    kl = mean_kl(logits(folder / "model", folder), logits(folder / "model.gguf", folder))
    print(f"{name} as {architecture}{f', {quantized.name}' if quantized else ''}: mean KL {kl:.3g}")
    return kl


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    cases = {name: case for name, *case in all_cases()}
    bad = {}
    for name, architecture, quantized in CASES:
        if wanted in name:
            module, config, _ = cases[name]
            with scratch() as folder:
                kl = compare(name, module, config, architecture, quantized, Path(folder))
            if not kl <= BOUND:
                bad[name] = kl
    assert not bad, f"mean KL above {BOUND}: {bad}"


main()
