"""Peak resident memory of generate and convert, on a model of 60 M weights.

The weights are random: only their bytes matter here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, assert_same_bytes, scratch

MB = 1_000_000
GENERATE_SLACK = 100 * MB  # program and libraries, activations of 512 rows
MEASURE_SLACK = 160 * MB  # and hidden states, logits, one matrix at each width
MOMENT_SLACK = 24 * MB  # x^T x of a layer's inputs, which gptq rounds by
# Nothing of the model but one matrix in float32 and its codes: 46 MB were seen.
UNIFORM_LIMIT = 65 * MB
MAX_RAM = 390 * MB  # what it takes is spilled; e2e/max_ram_slow has tighter limits
TIGHT = 1.5  # a bound further from what was found shows nothing
PROMPT_TOKENS = 1500  # about; prefilled in three chunks


def make_model(folder):
    """tiny-qwen3.5's layout, four layers, four times as wide."""
    import mlx.core as mx

    folder.mkdir()
    config = json.loads((MODEL / "config.json").read_text())
    text = config["text_config"]
    text.update(hidden_size=1024, intermediate_size=3584, num_hidden_layers=4,
                num_attention_heads=16, num_key_value_heads=4,
                linear_num_key_heads=16, linear_num_value_heads=16)
    text["layer_types"] = text["layer_types"][:4]
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder)
    hidden, inner, width, kv = 1024, 3584, 1024, 256
    shapes = {"embed_tokens.weight": (4096, hidden), "norm.weight": (hidden,)}
    for i in range(4):
        layer = {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
                 "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                 "mlp.down_proj": (hidden, inner)}
        if i == 3:
            layer.update({"self_attn.q_proj": (2 * width, hidden), "self_attn.k_proj": (kv, hidden),
                          "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, width),
                          "self_attn.q_norm": (64,), "self_attn.k_norm": (64,)})
        else:
            layer.update({"linear_attn.in_proj_qkv": (3 * width, hidden),
                          "linear_attn.in_proj_z": (width, hidden),
                          "linear_attn.in_proj_b": (16, hidden),
                          "linear_attn.in_proj_a": (16, hidden),
                          "linear_attn.conv1d": (3 * width, 1, 4),
                          "linear_attn.norm": (64,), "linear_attn.out_proj": (hidden, width)})
            shapes[f"layers.{i}.linear_attn.A_log"] = (16,)
            shapes[f"layers.{i}.linear_attn.dt_bias"] = (16,)
        shapes.update({f"layers.{i}.{k}.weight": v for k, v in layer.items()})
    mx.random.seed(0)
    tensors = {
        "model.language_model." + name: (0.02 * mx.random.normal(shape)).astype(mx.bfloat16)
        for name, shape in shapes.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)


def peak_rss(*arguments):
    """Runs optiq and returns the child's peak resident set in bytes."""
    child = subprocess.Popen([BIN, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return usage.ru_maxrss * 1024


def weight_bytes(folder):
    return sum(p.stat().st_size for p in folder.glob("model*.safetensors"))


def check(what, found, limit):
    print(f"{what}: {found / MB:.0f} MB, at most {limit / MB:.0f} MB")
    assert found <= limit <= TIGHT * found, what


def main():
    with scratch() as folder:
        folder = Path(folder)
        os.environ["OPTIQ_CACHE_DIR"] = str(folder / "cache")
        source, quantized = folder / "bf16", folder / "u4"
        # In a process of its own: a child's peak starts at its parent's size.
        subprocess.run([sys.executable, __file__, source], check=True)
        rss = peak_rss("convert", source, "-o", quantized, "--method", "uniform", "--bits", "4")
        check("convert, uniform", rss, UNIFORM_LIMIT)
        rss = peak_rss("convert", source, "-o", folder / "mixed", "--n-calibration", "1")
        check("convert, measured", rss, weight_bytes(source) + MEASURE_SLACK + MOMENT_SLACK)
        limited = folder / "limited"
        os.environ["OPTIQ_CACHE_DIR"] = str(folder / "another cache")
        rss = peak_rss("convert", source, "-o", limited, "--n-calibration", "1",
                       "--max-ram", str(MAX_RAM))
        check("convert, measured, --max-ram", rss, MAX_RAM)
        assert_same_bytes(folder / "mixed", limited)
        # K and V of one layer: 4 heads of 64, bf16, whole blocks of 64 tokens.
        kv = 2 * 4 * 64 * 2 * (PROMPT_TOKENS + 128)
        prompt = "word " * (PROMPT_TOKENS // 2)
        for model in (source, quantized):
            rss = peak_rss("generate", model, "--raw", "-p", prompt, "--max-tokens", "16", "--temp", "0")
            check(f"generate, {model.name}", rss, weight_bytes(model) + kv + GENERATE_SLACK)


if len(sys.argv) == 2:
    make_model(Path(sys.argv[1]))
else:
    main()
