"""Shared by the scripts that convert a real GGUF model: mlx-lm loads the result
and computes the same logits."""

import json
import shutil

import mlx.core as mx
import numpy as np
from mlx_lm import load
from safetensors.numpy import load_file, save_file

from _gguf import GGUF
from _support import DRIVERS, mean_kl, optiq, run, skip

SMOLLM = GGUF / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = GGUF / "gemma-3-270m-q4_k_m.gguf"
BOUND = 1e-6
N_TOKENS = 256
TEXT = (
    "The river rises in the hills above the old town, where three springs meet under a ruined mill. For most of the "
    "year it is a shallow stream, 4 to 6 metres wide; in March, when the snow melts, it carries away fences, bridges "
    "and now and then a careless cow. In 1872 the council built a weir of 212 stones, each of which bears the name "
    "of a family that paid for it. El agua es clara y fría. Das Wasser ist klar und kalt. Вода чистая. 水は冷たい。\n\n"
) * 4


def require(model):
    if not model.exists():
        skip(f"{model} is not there: run ./scripts/setup --developer")


def convert(source, out, folder, *options):
    optiq("convert", source, "-o", out, "--candidate-bits", "4,8", *options, "--progress", "none",
          env={"OPTIQ_CACHE_DIR": str(folder / "cache")})
    files = {f.name for f in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
            "README.md"} <= files, files
    widths = {v["bits"] for v in json.loads((out / "config.json").read_text())["quantization"].values()
              if isinstance(v, dict)}
    assert widths == {4, 8}, widths


def dense_copy(model, folder):
    """The same values as float32 matrices: MLX multiplies those in seconds."""
    folder.mkdir()
    config = json.loads((model / "config.json").read_text())
    block = config.pop("quantization")
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = mx.load(str(model / "model.safetensors"))
    dense = {}
    for name, value in tensors.items():
        module = name.rsplit(".", 1)[0]
        if name.endswith(".weight") and module + ".scales" in tensors:
            value = mx.dequantize(
                value, tensors[module + ".scales"].astype(mx.float32), tensors[module + ".biases"].astype(mx.float32),
                group_size=block[module]["group_size"], bits=block[module]["bits"])
        elif name.endswith((".scales", ".biases")):
            continue
        dense[name] = value.astype(mx.float32)
    mx.save_safetensors(str(folder / "model.safetensors"), dense)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder / name)
    return folder


def check_logits(model, folder):
    """Ours on the quantized directory against mlx-lm on its dense copy."""
    reference, tokenizer = load(str(dense_copy(model, folder / "dense")))
    ids = np.array(tokenizer.encode(TEXT)[:N_TOKENS], dtype=np.int32)
    assert len(ids) == N_TOKENS
    save_file({"ids": ids}, folder / "ids.safetensors")
    run(DRIVERS / "logits_driver", model, folder / "ids.safetensors", 256, "exact", folder / "logits.safetensors")
    want = np.array(reference(mx.array(ids)[None])[0].astype(mx.float32))
    kl = mean_kl(want, load_file(folder / "logits.safetensors")["ids"])
    print(f"{model.name}: {N_TOKENS} tokens, mean KL {kl:.3g} to mlx-lm")
    assert kl <= BOUND, kl
    return reference, tokenizer


def check_stock_load(model, n_tokens=4):
    """mlx-lm loads the quantized directory itself and computes with it."""
    loaded, tokenizer = load(str(model))
    logits = loaded(mx.array([tokenizer.encode(TEXT)[:n_tokens]]))
    assert bool(mx.all(mx.isfinite(logits)).item())


def complete(model, prompt, *options):
    out, _ = optiq("generate", model, "-p", prompt, "--temp", "0", "--compute", "exact", "--json", *options)
    return json.loads(out)
