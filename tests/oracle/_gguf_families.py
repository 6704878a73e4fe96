"""Small models as GGUF files, as llama.cpp's converter writes them: names from
PyPI's gguf, keys and the order of rows by the converter's rules."""

import math

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, RopeScalingType, get_tensor_name_map, quants

from _gguf import finish

# Architectures whose q and k have the two halves of a head interleaved.
INTERLEAVED = {"llama", "smollm3", "granite", "mistral3"}
ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3, "phi3": MODEL_ARCH.PHI3,
    "gemma2": MODEL_ARCH.GEMMA2, "gemma3": MODEL_ARCH.GEMMA3, "smollm3": MODEL_ARCH.SMOLLM3,
    "olmo2": MODEL_ARCH.OLMO2, "granite": MODEL_ARCH.GRANITE, "glm4": MODEL_ARCH.GLM4,
    "cohere2": MODEL_ARCH.COHERE2, "mistral3": MODEL_ARCH.MISTRAL3,
}


def interleave(rows, n_heads):
    halves = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def stored(architecture, name, value, config):
    """A tensor of the Hugging Face checkpoint as the file has it."""
    if architecture in INTERLEAVED:
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if f".{part}." in name:
                value = interleave(value, config[heads])
    if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        value = value + 1
    return np.ascontiguousarray(value)


def add_rope_scaling(writer, architecture, config):
    rope = config.get("rope_parameters", config.get("rope_scaling")) or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                         ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                         ("beta_slow", writer.add_rope_scaling_yarn_beta_slow)):
            if key in rope:
                add(rope[key])
    elif kind in ("longrope", "su") and architecture == "phi3":
        ratio = config["max_position_embeddings"] / config["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(
            math.sqrt(1 + math.log(ratio) / math.log(config["original_max_position_embeddings"])))
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], dtype=np.float32))
    if architecture == "mistral3" and "llama_4_scaling_beta" in rope:
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    return rope


def add_own_keys(writer, architecture, config, head_dim):
    if architecture in INTERLEAVED:
        writer.add_rope_dimension_count(head_dim)
    if architecture == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if architecture in ("glm4", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * config.get("partial_rotary_factor", 1.0)))
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_sliding_window(config.get("sliding_window") or 0)
    if architecture in ("gemma2", "gemma3", "cohere2"):
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if architecture == "cohere2":
        writer.add_logit_scale(config["logit_scale"])
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_scaling_type(RopeScalingType.NONE)
    if architecture == "olmo2" and "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])
        types = config.get("layer_types") or [
            "full_attention" if (i + 1) % 4 == 0 else "sliding_attention" for i in range(config["num_hidden_layers"])]
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in types])


def write_gguf(path, architecture, config, tensors, quantized=None):
    """`tensors` by their Hugging Face names, float32; matrices but embeddings
    and head in the type `quantized`, if any. Returns what the file holds, by
    these names."""
    writer = GGUFWriter(path, architecture)
    n_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // n_heads)
    rope = add_rope_scaling(writer, architecture, config)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if architecture == "cohere2":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if architecture != "gemma2":  # its converter leaves the default of 1e4 out
        writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta")))
    add_own_keys(writer, architecture, config, head_dim)
    names = get_tensor_name_map(ARCHITECTURES[architecture], config["num_hidden_layers"])
    held = {}
    for name, value in tensors.items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None, (architecture, name)
        value = stored(architecture, name, value.astype(np.float32), config)
        held[name] = tensors[name]
        if quantized and value.ndim == 2 and ".layers." in name:
            data = quants.quantize(value, quantized)
            writer.add_tensor(gguf_name, data, raw_dtype=quantized)
            held[name] = quants.quantize(tensors[name].astype(np.float32), quantized)
            held[name] = quants.dequantize(held[name], quantized)  # row by row: the order does not matter
        else:
            writer.add_tensor(gguf_name, value, raw_dtype=GGMLQuantizationType.F32)
    finish(writer)
    return held
