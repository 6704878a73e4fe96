"""RAM, disk and time that convert --dry-run announces, against what the same
conversion takes: within a third. Memory is the kernel's peak of the process,
disk the bytes of the files, time the CPU seconds of the process, since others
may use the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_llama import write_model
from _support import BIN, MODEL, optiq, scratch

THIRD = 1 / 3
WIDE = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64}


def write_gguf(path, folder, config):
    """The model as a GGUF file of Q8_0 matrices."""
    import gguf
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config["head_dim"])
    vocabulary = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
    letters = sorted(tokens, key=tokens.get)[:256]
    letters.append(letters[0] + letters[1])
    writer.add_token_list(letters + [f"[PAD{i}]" for i in range(257, vocabulary)])
    writer.add_token_types([1] * 257 + [5] * (vocabulary - 257))
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
             "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
    for name, values in load_file(folder / "model.safetensors").items():
        stem, values = name.removesuffix(".weight"), values.astype(np.float32)
        if stem.startswith("model.layers."):
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            stem = f"blk.{layer}.{names[part]}"
        else:
            stem = names[stem]
        if values.ndim == 1:
            writer.add_tensor(stem + ".weight", values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stem + ".weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def cpu_seconds(*arguments, env):
    """CPU seconds of the process."""
    child = subprocess.Popen([BIN, *map(str, arguments)], env={**os.environ, **env}, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return usage.ru_utime + usage.ru_stime


def bytes_below(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def is_within_a_third(announced, found):
    return abs(announced - found) <= THIRD * found


def check(tmp, name, source, flags, checks_time=False):
    out, result = tmp / f"{name}-out", tmp / "result.json"
    # A cache of its own: what is measured once is not measured again.
    env = {"OPTIQ_CACHE_DIR": str(tmp / f"{name}-cache")}
    # With one thread CPU seconds are those of an idle machine.
    command = ("convert", source, "-o", out, "--threads", "1", *flags)
    optiq(*command, "--dry-run", "--json", result, env=env)
    announced = json.loads(result.read_text())
    seconds = cpu_seconds(*command, "--json", result, env=env)
    took = json.loads(result.read_text())
    # VmHWM: what wait4 says of a child begins with its parent's size.
    peak = took["peak_rss_bytes"]
    written = bytes_below(out)
    print(f"{name}: disk {announced['disk_bytes'] / 1e6:.2f} MB announced, {written / 1e6:.2f} written; "
          f"RAM {announced['ram_bytes'] / 1e6:.1f} and {peak / 1e6:.1f} MB; "
          f"time {announced['estimated_seconds']:.2f} and {seconds:.2f} CPU s", flush=True)
    assert is_within_a_third(announced["disk_bytes"], written), name
    assert took["disk_bytes"] == written, name
    assert is_within_a_third(announced["ram_bytes"], peak), name
    if checks_time:
        # The trial is timed by the wall clock, which others may slow down.
        assert announced["estimated_seconds"] >= (1 - THIRD) * seconds, name


def main():
    with scratch() as folder:
        tmp = Path(folder)
        small = write_model(tmp / "small", MODEL)
        wide = write_model(tmp / "wide", MODEL, WIDE)
        for source in (small, wide):
            config = json.loads((source / "config.json").read_text())
            write_gguf(source.with_suffix(".gguf"), source, config)
        uniform = ["--method", "uniform", "--bits", "4"]
        static = ["--method", "static", "--candidate-bits", "4,8"]
        check(tmp, "small-uniform", small, uniform)
        check(tmp, "wide-uniform", wide, uniform)
        check(tmp, "wide-8-bits", wide, ["--method", "uniform", "--bits", "8"])
        check(tmp, "wide-static", wide, static)
        check(tmp, "gguf-uniform", tmp / "wide.gguf", uniform)
        check(tmp, "gguf-static", tmp / "wide.gguf", static)
        check(tmp, "tiny-uniform", MODEL, uniform)
        check(tmp, "small-optiq", small, ["--n-calibration", "1"], checks_time=True)
        check(tmp, "gguf-optiq", tmp / "small.gguf", ["--n-calibration", "1"], checks_time=True)


main()
