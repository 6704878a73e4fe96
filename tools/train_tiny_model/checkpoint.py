"""Writes tiny-qwen3.5 in the layout of a Hugging Face Qwen3.5 release, with the
golden logits of the written weights."""

import json
import random

import torch
from safetensors.torch import save_file
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

import tasks

SHARD_BYTES = 12_000_000
# What the text model's config says, in this order, whatever defaults the
# installed transformers adds.
TEXT_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache "
    "tie_word_embeddings rope_parameters attention_bias attention_dropout head_dim "
    "linear_conv_kernel_dim linear_key_head_dim linear_value_head_dim linear_num_key_heads "
    "linear_num_value_heads layer_types pad_token_id eos_token_id model_type").split()
GOLDEN_SEED = 4242
GOLDEN_TOKENS = 96


def release_tensors(model, mtp):
    """bfloat16, but A_log float32; the tied head is not stored."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        dtype = torch.float32 if name.endswith("A_log") else torch.bfloat16
        name = name.replace("model.", "model.language_model.", 1)
        tensors[name] = value.to(dtype).contiguous().cpu()
    for name, value in mtp.state_dict().items():
        tensors[f"mtp.{name}"] = value.to(torch.bfloat16).contiguous().cpu()
    return tensors


def nbytes(tensor):
    return tensor.numel() * tensor.element_size()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1))


def write_weights(out, tensors):
    shards, filled = [{}], 0
    for name, tensor in tensors.items():
        if filled + nbytes(tensor) > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += nbytes(tensor)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, out / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in shard}
    total = sum(nbytes(tensor) for tensor in tensors.values())
    write_json(out / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_configs(out, config):
    text_config = {key: getattr(config, key) for key in TEXT_KEYS}
    text_config["mtp_num_hidden_layers"] = 1
    text_config["dtype"] = "bfloat16"
    text_config["full_attention_interval"] = config.layer_types.index("full_attention") + 1
    write_json(out / "config.json", {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": text_config,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "eos_token_id": config.eos_token_id,
    })
    write_json(out / "generation_config.json", {
        "eos_token_id": [config.eos_token_id, config.pad_token_id],
        "pad_token_id": config.pad_token_id,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
    })


def write_golden(out, config, tensors, tokenizer, device):
    """input_ids [L] int32 and logits [L, V] of a float32 forward with the
    bfloat16 weights as stored."""
    reference = Qwen3_5ForCausalLM(config).to(device).float()
    state = {name.replace("model.language_model.", "model.", 1): value.float()
             for name, value in tensors.items() if not name.startswith("mtp.")}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    reference.load_state_dict(state, strict=True)
    reference.eval()
    question, answer, _ = tasks.problem(random.Random(GOLDEN_SEED))
    ids = tokenizer.encode(tasks.chat(question, answer)).ids[:GOLDEN_TOKENS]
    with torch.no_grad():
        logits = reference(input_ids=torch.tensor([ids], device=device)).logits[0].float().cpu()
    save_file({"input_ids": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous()},
              out / "golden.safetensors")


def write_checkpoint(out, model, mtp, config, tokenizer, fast_tokenizer, device):
    out.mkdir(parents=True, exist_ok=True)
    tensors = release_tensors(model, mtp)
    write_weights(out, tensors)
    write_configs(out, config)
    fast_tokenizer.save_pretrained(out)
    write_golden(out, config, tensors, tokenizer, device)
