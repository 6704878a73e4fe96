"""Writes a model directory of Llama-3.1-8B's shapes at random weights in MLX's
affine format, to measure speed with: random_llama.py FOLDER [BITS [LAYERS]].
Takes 4.5 GB at 4 bits. A token of its tokenizer is a byte."""

import json
import struct
import sys
from pathlib import Path

import numpy as np

HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 4096, 32, 8, 128
INTERMEDIATE, VOCABULARY, GROUP = 14336, 128256, 64


def matrices(layers):
    yield "model.embed_tokens", VOCABULARY, HIDDEN
    yield "lm_head", VOCABULARY, HIDDEN
    for layer in range(layers):
        at = f"model.layers.{layer}."
        yield at + "self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN
        yield at + "self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN
        yield at + "self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN
        yield at + "self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM
        yield at + "mlp.gate_proj", INTERMEDIATE, HIDDEN
        yield at + "mlp.up_proj", INTERMEDIATE, HIDDEN
        yield at + "mlp.down_proj", HIDDEN, INTERMEDIATE


def norms(layers):
    yield "model.norm.weight"
    for layer in range(layers):
        yield f"model.layers.{layer}.input_layernorm.weight"
        yield f"model.layers.{layer}.post_attention_layernorm.weight"


def tensors(bits, layers):
    """Name, shape and what it is filled with: None is random words, a number
    bfloat16."""
    for name, n_out, n_in in matrices(layers):
        scale = 3.5 / n_in**0.5 / (1 << bits)  # rows of about unit variance
        yield name + ".weight", (n_out, n_in * bits // 32), None
        yield name + ".scales", (n_out, n_in // GROUP), scale
        yield name + ".biases", (n_out, n_in // GROUP), -scale * ((1 << bits) - 1) / 2
    for name in norms(layers):
        yield name, (HIDDEN,), 1.0


def write_weights(path, bits, layers):
    header = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, shape, value in tensors(bits, layers):
        begin, end = end, end + int(np.prod(shape)) * (4 if value is None else 2)
        header[name] = {"dtype": "U32" if value is None else "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    random = np.random.default_rng(1)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, value in tensors(bits, layers):
            if value is None:
                random.integers(0, 1 << 32, shape, dtype=np.uint32).tofile(file)
            else:
                half = int(np.float32(value).view(np.uint32)) >> 16
                np.full(shape, half, np.uint16).tofile(file)


def write_config(folder, bits, layers):
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": layers, "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 131072, "quantization": {"bits": bits, "group_size": GROUP}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    # The letters that byte-level BPE has for bytes.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(rest))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {letter: i for i, letter in enumerate(letters)}, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": byte_level,
                 "post_processor": None, "decoder": byte_level, "model": model}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def main():
    folder = Path(sys.argv[1])
    bits = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    layers = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "model.safetensors", bits, layers)
    write_config(folder, bits, layers)


main()
