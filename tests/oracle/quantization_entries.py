"""Every spelling of config.json's quantization entries, judged by stock mlx-lm:
what it loads we load, with the same logits; what contradicts the tensors both
refuse. Other libraries' quantization is refused by its name."""

import copy
import json
import subprocess
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import llama
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, mean_kl, optiq, scratch

BOUND = 1e-6
VOCABULARY = 211
CONFIG = dict(
    model_type="llama", vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, intermediate_size=192,
    num_attention_heads=4, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5, rope_theta=10000.0,
    max_position_embeddings=512, tie_word_embeddings=False, hidden_act="silu")
NARROW = {"group_size": 32, "bits": 8}
WIDE = {"group_size": 64, "bits": 4}
Q_PROJ = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]


def widths(path):
    """Embeddings and head at 8 bits, q_proj dense, all else at 4."""
    if path in ("model.embed_tokens", "lm_head"):
        return NARROW
    return False if path in Q_PROJ else WIDE


def make_model(folder):
    mx.random.seed(3)
    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    model.update(tree_map(lambda w: 1 + 0.2 * mx.random.normal(w.shape) if w.ndim == 1
                          else mx.random.normal(w.shape) / np.sqrt(w.shape[-1]), model.parameters()))
    nn.quantize(model, class_predicate=lambda path, m: hasattr(m, "to_quantized") and widths(path))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))


def blocks():
    """(name, the members of config.json that say it)."""
    exact = {"model.embed_tokens": NARROW, "lm_head": NARROW}
    dense = {name: False for name in Q_PROJ}
    yield "no entries: the shapes say it", {"quantization": WIDE}
    yield "entries of what differs", {"quantization": {**WIDE, **exact}}
    yield "false entries, twice", dict.fromkeys(("quantization", "quantization_config"), {**WIDE, **exact, **dense})
    yield "null entries", {"quantization": {**WIDE, **exact, **dict.fromkeys(Q_PROJ)}}
    yield "modes", {"quantization": {
        **WIDE, "mode": "affine", "lm_head": {**NARROW, "mode": "affine"}, "model.embed_tokens": NARROW}}
    yield "true entries", {"quantization": {**WIDE, **exact, "model.layers.0.mlp.up_proj": True}}
    yield "a group that is null", {"quantization": {
        **WIDE, **exact, "model.layers.0.mlp.up_proj": {"bits": 4, "group_size": None}}}
    yield "names with another prefix", {"quantization": {
        **WIDE, "language_model.lm_head": NARROW, "language_model.model.embed_tokens": NARROW,
        "embed_tokens": {"bits": 3, "group_size": 128}}}
    yield "a method beside MLX's own block", {
        "quantization": {**WIDE, **exact}, "quantization_config": {"quant_method": "fp8"}}
    yield "unknown members", {"quantization": {**WIDE, **exact, "linear_class": "x", "version": 2}}
    # Contradictions.
    yield "false for what is quantized", {"quantization": {**WIDE, "lm_head": False}}
    yield "true for what is dense", {"quantization": {**WIDE, Q_PROJ[0]: True}}
    yield "an entry for what is dense", {"quantization": {**WIDE, Q_PROJ[0]: WIDE}}
    yield "other bits", {"quantization": {**WIDE, "lm_head": {"group_size": 32, "bits": 4}}}
    yield "another group", {"quantization": {**WIDE, "lm_head": {"group_size": 64, "bits": 8}}}
    yield "true for other bits", {"quantization": {**WIDE, "lm_head": True}}
    yield "another mode", {"quantization": {**WIDE, "lm_head": {"group_size": 32, "bits": 8, "mode": "mxfp8"}}}


def judge(folder, ids):
    """mlx-lm's logits, or None when it refuses the folder."""
    try:
        model, _ = load_model(folder)
    except Exception:
        return None
    return np.array(model(mx.array(ids)[None])[0].astype(mx.float32))


def ours(folder, ids_file, out):
    """Our logits, or the message of the refusal."""
    out.unlink(missing_ok=True)
    done = subprocess.run([DRIVERS / "logits_driver", folder, ids_file, "64", "exact", out],
                          capture_output=True, text=True)
    return load_file(out)["ids"] if done.returncode == 0 else done.stderr


def check_entries(folder):
    model = folder / "model"
    model.mkdir()
    make_model(model)
    ids = np.random.default_rng(3).integers(0, VOCABULARY, 60, dtype=np.int32)
    save_file({"ids": ids}, folder / "ids.safetensors")
    accepted = refused = 0
    for name, members in blocks():
        (model / "config.json").write_text(json.dumps({**CONFIG, **copy.deepcopy(members)}))
        wanted = judge(model, ids)
        found = ours(model, folder / "ids.safetensors", folder / "out.safetensors")
        if wanted is None:
            assert isinstance(found, str) and "[quantization_of]" in found, (name, found)
            refused += 1
        else:
            assert not isinstance(found, str), (name, found)
            kl = mean_kl(wanted, found)
            assert kl <= BOUND, (name, kl)
            accepted += 1
    assert accepted >= 10 and refused >= 7, (accepted, refused)
    print(f"entries: {accepted} spellings with mlx-lm's logits, {refused} contradictions refused by both")


def check_methods(folder):
    """Refused by name, by generate and by convert."""
    methods = ("awq", "gptq", "bitsandbytes", "fp8", "mxfp4", "compressed-tensors", "modelopt", "quark")
    for method in methods:
        for members in ({"quantization_config": {"quant_method": method}},
                        {"text_config": {"quantization_config": {"quant_method": method}}},
                        {"quantization": None, "quantization_config": {"quant_method": method, "bits": 4}}):
            (folder / "config.json").write_text(json.dumps({**CONFIG, **members}))
            for command in (("inspect", folder), ("convert", folder, "-o", folder / "out", "--method", "uniform")):
                _, error = optiq(*command, expect=4)
                assert f'"{method}"' in error and "optiq convert" in error, error
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    _, error = optiq("inspect", folder, expect=4)
    assert "NVFP4" in error and "hf_quant_config.json" in error, error
    (folder / "hf_quant_config.json").unlink()
    for mode, bits, group in (("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)):
        tensors = load_file(folder / "model.safetensors")
        weight = mx.random.normal((VOCABULARY, CONFIG["hidden_size"]))
        packed, scales = mx.quantize(weight, group_size=group, bits=bits, mode=mode)[:2]
        tensors.update({"lm_head.weight": np.array(packed), "lm_head.scales": np.array(scales)})
        tensors.pop("lm_head.biases")
        other = folder / mode
        other.mkdir()
        save_file(tensors, other / "model.safetensors")
        block = {"group_size": group, "bits": bits, "mode": mode}
        (other / "config.json").write_text(json.dumps({**CONFIG, "quantization": block}))
        _, error = optiq("inspect", other, expect=4)
        assert mode in error and "lm_head" in error, error
    print(f"methods: {len(methods)} and NVFP4, mxfp4, nvfp4, mxfp8 refused by name")


def main():
    with scratch() as name:
        folder = Path(name)
        check_entries(folder)
        check_methods(folder / "model")


main()
