"""A model of 200 kB with a tokenizer: all that a command needs to run once."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, INNER, HEAD, LAYERS = 64, 64, 64, 1


def write_tokenizer(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def write_small_model(folder):
    """A llama of one layer and one head at random weights."""
    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder)
    config = {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": HEAD, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(7)
    tensors = {"model.norm.weight": np.ones(HIDDEN, np.float16)}

    def add(name, rows, columns):
        values = random.normal(0, columns**-0.5, (rows, columns))
        tensors[name] = values.astype(np.float16)

    add("model.embed_tokens.weight", vocabulary, HIDDEN)
    for i in range(LAYERS):
        prefix = f"model.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj"):
            add(f"{prefix}self_attn.{name}.weight", HEAD, HIDDEN)
        add(f"{prefix}self_attn.o_proj.weight", HIDDEN, HEAD)
        for name in ("gate_proj", "up_proj"):
            add(f"{prefix}mlp.{name}.weight", INNER, HIDDEN)
        add(f"{prefix}mlp.down_proj.weight", HIDDEN, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = np.ones(HIDDEN, np.float16)
    save_file(tensors, str(folder / "model.safetensors"))
