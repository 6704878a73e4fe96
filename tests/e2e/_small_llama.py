"""A small llama with tiny-qwen3.5's tokenizer, at random weights."""

import json
import shutil

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 4096,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    "hidden_act": "silu"}


def shapes(config):
    """Names and shapes of the model's tensors."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    names = {"model.embed_tokens": (config["vocab_size"], hidden), "model.norm": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": (hidden,), "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, q),
            "post_attention_layernorm": (hidden,), "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
        names.update({f"model.layers.{i}.{name}": shape for name, shape in layer.items()})
    if not config["tie_word_embeddings"]:
        names["lm_head"] = (config["vocab_size"], hidden)
    return {f"{name}.weight": shape for name, shape in names.items()}


def make_tensors(config, dtype=np.float16, seed=5):
    random = np.random.default_rng(seed)
    return {name: (random.normal(size=shape) / np.sqrt(shape[-1])).astype(dtype) if len(shape) == 2
            else np.ones(shape, dtype) for name, shape in shapes(config).items()}


def write_model(folder, tokenizer, config=None, tensors=None):
    """`tokenizer`: the directory that lends its files."""
    config = {**CONFIG, **(config or {})}
    folder.mkdir(parents=True)
    save_file(tensors or make_tensors(config), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder)
    return folder
