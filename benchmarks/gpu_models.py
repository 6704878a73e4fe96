#!/usr/bin/env python3
"""Writes a model directory of a known model's shapes at random weights in MLX's
affine format, or at 16 bits in bfloat16, to measure speed with: gpu_models.py
SHAPE FOLDER [BITS]. Shapes: llama-8b, qwen3.5-9b, qwen3.5-0.8b. A token of its
tokenizer is a byte."""

import json
import struct
import sys
from pathlib import Path

import numpy as np

GROUP = 64

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5,
    "vocab_size": 128256, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "max_position_embeddings": 131072}  # fmt: skip


def qwen3_5(hidden, layers, intermediate, heads, kv_heads, value_heads, tied):
    text = {
        "model_type": "qwen3_5_text", "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": 256, "rms_norm_eps": 1e-6, "vocab_size": 248320, "tie_word_embeddings": tied,
        "max_position_embeddings": 262144, "attention_bias": False, "hidden_act": "silu",
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": value_heads, "full_attention_interval": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
        "layer_types": ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(layers)]}  # fmt: skip
    return {"model_type": "qwen3_5", "text_config": text, "tie_word_embeddings": tied}


SHAPES = {
    "llama-8b": LLAMA_8B,
    "qwen3.5-9b": qwen3_5(4096, 32, 12288, 16, 4, 32, False),
    "qwen3.5-0.8b": qwen3_5(1024, 24, 3584, 8, 2, 16, True),
}


def attention(at, text, gate):
    hidden, dim = text["hidden_size"], text["head_dim"]
    q, kv = text["num_attention_heads"] * dim, text["num_key_value_heads"] * dim
    yield at + "q_proj", q * (2 if gate else 1), hidden
    yield at + "k_proj", kv, hidden
    yield at + "v_proj", kv, hidden
    yield at + "o_proj", hidden, q


def delta_widths(text):
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
    return 2 * keys + values, values, text["linear_num_value_heads"]


def delta_net(at, text):
    hidden = text["hidden_size"]
    qkv, values, heads = delta_widths(text)
    yield at + "in_proj_qkv", qkv, hidden
    yield at + "in_proj_z", values, hidden
    yield at + "in_proj_b", heads, hidden
    yield at + "in_proj_a", heads, hidden
    yield at + "out_proj", hidden, values


def is_linear(text, layer):
    return text.get("layer_types", ["full_attention"] * (layer + 1))[layer] == "linear_attention"


def matrices(text, prefix):
    """Name, out and in of what is quantized."""
    hidden, intermediate, vocabulary = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    yield prefix + "model.embed_tokens", vocabulary, hidden
    if not text["tie_word_embeddings"]:
        yield prefix + "lm_head", vocabulary, hidden
    for layer in range(text["num_hidden_layers"]):
        at = f"{prefix}model.layers.{layer}."
        if is_linear(text, layer):
            yield from delta_net(at + "linear_attn.", text)
        else:
            yield from attention(at + "self_attn.", text, prefix != "")
        yield at + "mlp.gate_proj", intermediate, hidden
        yield at + "mlp.up_proj", intermediate, hidden
        yield at + "mlp.down_proj", hidden, intermediate


def vectors(text, prefix):
    """Name, shape and value of what is not."""
    hidden = text["hidden_size"]
    yield prefix + "model.norm.weight", (hidden,), 1.0
    for layer in range(text["num_hidden_layers"]):
        at = f"{prefix}model.layers.{layer}."
        yield at + "input_layernorm.weight", (hidden,), 1.0
        yield at + "post_attention_layernorm.weight", (hidden,), 1.0
        if is_linear(text, layer):
            qkv, _, heads = delta_widths(text)
            yield at + "linear_attn.conv1d.weight", (qkv, text["linear_conv_kernel_dim"], 1), 0.25
            yield at + "linear_attn.A_log", (heads,), 0.0
            yield at + "linear_attn.dt_bias", (heads,), 0.0
            yield at + "linear_attn.norm.weight", (text["linear_value_head_dim"],), 1.0
        elif prefix:
            yield at + "self_attn.q_norm.weight", (text["head_dim"],), 1.0
            yield at + "self_attn.k_norm.weight", (text["head_dim"],), 1.0


class Noise(float):
    """Numbers of random sign and from this one on up to twice it."""


def tensors(text, prefix, bits):
    """Name, shape and what it is filled with: None is random words, a number
    bfloat16."""
    for name, n_out, n_in in matrices(text, prefix):
        if bits == 16:
            yield name + ".weight", (n_out, n_in), Noise(0.5 / n_in**0.5)
            continue
        scale = 3.5 / n_in**0.5 / (1 << bits)  # rows of about unit variance
        yield name + ".weight", (n_out, n_in * bits // 32), None
        yield name + ".scales", (n_out, n_in // GROUP), scale
        yield name + ".biases", (n_out, n_in // GROUP), -scale * ((1 << bits) - 1) / 2
    yield from vectors(text, prefix)


def write_weights(path, all_tensors):
    header = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, shape, value in all_tensors:
        begin, end = end, end + int(np.prod(shape)) * (4 if value is None else 2)
        header[name] = {"dtype": "U32" if value is None else "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    random = np.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, value in all_tensors:
            if value is None:
                random.integers(0, 1 << 32, shape, dtype=np.uint32).tofile(file)
                continue
            half = int(np.float32(value).view(np.uint32)) >> 16
            if isinstance(value, Noise):
                words = random.integers(0, 1 << 32, int(np.prod(shape)) // 2, dtype=np.uint32)
                (words & 0x807F807F | (half & 0x7F80) * 0x10001).tofile(file)
            else:
                np.full(shape, half, np.uint16).tofile(file)


def write_tokenizer(folder):
    # The letters that byte-level BPE has for bytes.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {letter: i for i, letter in enumerate(letters)}, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": byte_level,
                 "post_processor": None, "decoder": byte_level, "model": model}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def write_model(shape, folder, bits=4):
    config = dict(SHAPES[shape])
    if bits < 16:
        config["quantization"] = {"bits": bits, "group_size": GROUP}
    text = config.get("text_config", config)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "language_model." if "text_config" in config else ""
    write_weights(folder / "model.safetensors", list(tensors(text, prefix, bits)))
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)


if __name__ == "__main__":
    write_model(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 4)
