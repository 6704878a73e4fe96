"""Every family's float32 forward against stock mlx-lm's, at random weights.

mlx-lm makes and saves the model, so names and shapes are its own. We run the
prompt whole, in chunks, and three sequences token by token in one batch.
"""

import importlib
import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, mean_kl, optiq, run, scratch

VOCABULARY = 311
LENGTHS = {"a": 300, "b": 131, "c": 64}
CHUNKS = [512, 100, 64, 0]  # 0: the batch
BOUND = 1e-6

BASE = dict(
    vocab_size=VOCABULARY, hidden_size=96, num_hidden_layers=3, intermediate_size=160,
    num_attention_heads=6, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5,
    max_position_embeddings=4096, rope_theta=10000.0, tie_word_embeddings=True,
)
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=256,
)
GEMMA4_ROPE = dict(
    full_attention=dict(rope_type="proportional", rope_theta=1e6, partial_rotary_factor=0.25),
    sliding_attention=dict(rope_type="default", rope_theta=1e4))


def cases():
    """(name, mlx-lm module, config, quantization)."""
    llama = dict(BASE, model_type="llama", hidden_act="silu")
    yield "llama, tied, GQA", "llama", llama, None
    no_head_dim = {k: v for k, v in llama.items() if k != "head_dim"}
    yield "llama, untied, MQA, H / heads", "llama", dict(
        no_head_dim, tie_word_embeddings=False, num_key_value_heads=1), None
    yield "llama, one KV head per head, linear rope", "llama", dict(
        llama, num_key_value_heads=6, rope_scaling=dict(type="linear", factor=4.0)), None
    yield "llama, llama3 rope", "llama", dict(llama, rope_scaling=LLAMA3, rope_theta=5e5), None
    yield "mistral", "llama", dict(llama, model_type="mistral", tie_word_embeddings=False), None
    yield "llama, sliding window", "llama", dict(
        llama, sliding_window=50, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), None
    wide = dict(llama, hidden_size=128, intermediate_size=192)
    yield "llama, 4 bits, groups of 32", "llama", wide, dict(bits=4, group_size=32)
    yield "llama, 4 bits, groups of 64", "llama", dict(
        wide, tie_word_embeddings=False), dict(bits=4, group_size=64)
    qwen3 = dict(BASE, model_type="qwen3", hidden_act="silu")
    yield "qwen3, tied", "qwen3", qwen3, None
    yield "qwen3, untied, nested rope", "qwen3", dict(
        {k: v for k, v in qwen3.items() if k != "rope_theta"}, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="default", rope_theta=1e6)), None
    yield "qwen3, 4 bits", "qwen3", dict(qwen3, hidden_size=128), dict(bits=4, group_size=32)
    gemma3 = dict(
        BASE, model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=24,
        num_hidden_layers=6, sliding_window=32, sliding_window_pattern=3, rope_theta=1e6,
        rope_local_base_freq=1e4)
    yield "gemma3_text, tied", "gemma3_text", gemma3, None
    yield "gemma3_text, untied, window of 65, linear rope, MQA", "gemma3_text", dict(
        gemma3, tie_word_embeddings=False, sliding_window=65, num_key_value_heads=1,
        rope_scaling=dict(rope_type="linear", factor=8.0)), None
    yield "gemma3_text, 4 bits", "gemma3_text", dict(
        gemma3, hidden_size=128, intermediate_size=192), dict(bits=4, group_size=64)
    gemma4 = dict(
        BASE, model_type="gemma4_text", hidden_activation="gelu_pytorch_tanh", num_hidden_layers=7,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                     "sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=40, global_head_dim=64, num_kv_shared_layers=3, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=VOCABULARY, final_logit_softcapping=30.0,
        attention_k_eq_v=False, enable_moe_block=False, rope_parameters=GEMMA4_ROPE)
    yield "gemma4_text, tied", "gemma4_text", gemma4, None
    yield "gemma4_text, untied, nothing shared, no inputs per layer, K as V", "gemma4_text", dict(
        gemma4, tie_word_embeddings=False, num_kv_shared_layers=0, hidden_size_per_layer_input=0,
        attention_k_eq_v=True, num_global_key_value_heads=1, final_logit_softcapping=2.0), None
    yield "gemma4_text, 4 bits", "gemma4_text", dict(
        gemma4, hidden_size=128, intermediate_size=192, hidden_size_per_layer_input=64), dict(bits=4, group_size=64)


def random_weight(weight, is_gain_minus_one):
    if weight.ndim == 1:
        return (0 if is_gain_minus_one else 1) + 0.2 * mx.random.normal(weight.shape)
    # Rows of unit variance: logits differ by several nats.
    return mx.random.normal(weight.shape) / np.sqrt(weight.shape[-1])


def make_model(module, config, quantization, folder):
    """A saved model directory and the model itself."""
    family = importlib.import_module(f"mlx_lm.models.{module}")
    model = family.Model(family.ModelArgs.from_dict(config))
    if config["tie_word_embeddings"]:
        weights = dict(tree_flatten(model.parameters()))
        weights.pop("lm_head.weight", None)
        model.sanitize(weights)  # gemma3_text: a checkpoint without a head is tied
    is_gain_minus_one = module == "gemma3_text"
    model.update(tree_map(lambda weight: random_weight(weight, is_gain_minus_one), model.parameters()))
    if quantization:
        nn.quantize(model, **quantization)
        config = dict(config, quantization=quantization)
    mx.eval(model.parameters())
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return model


def compare(name, module, config, quantization, folder):
    mx.random.seed(7)
    random = np.random.default_rng(7)
    ids = {k: random.integers(0, VOCABULARY, n, dtype=np.int32) for k, n in LENGTHS.items()}
    save_file(ids, folder / "ids.safetensors")
    model = make_model(module, config, quantization, folder / "model")
    reference = {k: np.array(model(mx.array(v)[None])[0].astype(mx.float32)) for k, v in ids.items()}
    spread = min(float(np.std(logits)) for logits in reference.values())
    assert spread > 0.3, f"{name}: logits of spread {spread} prove nothing"
    worst = 0.0
    for chunk in CHUNKS:
        out = folder / f"logits-{chunk}.safetensors"
        run(DRIVERS / "logits_driver", folder / "model", folder / "ids.safetensors", chunk, "exact", out)
        ours = load_file(out)
        worst = max(worst, *(mean_kl(reference[k], ours[k]) for k in ids))
    print(f"{name}: mean KL {worst:.3g}")
    return worst


def compare_converted(name, module, config, folder):
    """What convert writes of the family, by stock mlx-lm and by us."""
    mx.random.seed(8)
    make_model(module, dict(config, hidden_size=128, intermediate_size=192), None, folder / "model")
    optiq("convert", folder / "model", "-o", folder / "mixed", "--method", "static", "--target-bpw", "5",
          "--candidate-bits", "4,8", "--group-size", "64")
    model, written = load_model(folder / "mixed")
    widths = {v["bits"] for v in written["quantization"].values() if isinstance(v, dict)}
    assert widths == {4, 8}, widths
    ids = np.random.default_rng(8).integers(0, VOCABULARY, 200, dtype=np.int32)
    save_file({"ids": ids}, folder / "ids.safetensors")
    run(DRIVERS / "logits_driver", folder / "mixed", folder / "ids.safetensors", 64, "exact",
        folder / "logits.safetensors")
    reference = np.array(model(mx.array(ids)[None])[0].astype(mx.float32))
    kl = mean_kl(reference, load_file(folder / "logits.safetensors")["ids"])
    print(f"{name}, converted to 4 and 8 bits: mean KL {kl:.3g}")
    return kl


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    worst = {}
    for name, *case in cases():
        if wanted in name:
            with scratch() as folder:
                worst[name] = compare(name, *case, Path(folder))
            if name.endswith(", tied") or ", tied," in name:
                with scratch() as folder:
                    worst[name + ", converted"] = compare_converted(name, *case[:2], Path(folder))
    bad = {name: kl for name, kl in worst.items() if not kl <= BOUND}
    assert worst and not bad, f"mean KL above {BOUND}: {bad}"


main()
