"""A Llama-shaped model that is larger than the memory a process may have is
converted tensor by tensor; when one tensor does not fit, that is refused with
numbers.

The memory is capped by RLIMIT_AS, which counts every mapping: a process that
mapped the model, or held it, would end. The source is a sparse file.
"""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, scratch

MIB = 1 << 20
HIDDEN, INNER, KV, LAYERS, VOCAB = 2048, 8192, 512, 12, 8192
PLANTED = ("model.embed_tokens.weight", f"model.layers.{LAYERS - 1}.mlp.down_proj.weight")


def shapes():
    """Names and shapes in file order; bfloat16, tied embeddings."""
    yield PLANTED[0], (VOCAB, HIDDEN)
    for i in range(LAYERS):
        for name, shape in (
                ("input_layernorm", (HIDDEN,)), ("self_attn.q_proj", (HIDDEN, HIDDEN)),
                ("self_attn.k_proj", (KV, HIDDEN)), ("self_attn.v_proj", (KV, HIDDEN)),
                ("self_attn.o_proj", (HIDDEN, HIDDEN)), ("post_attention_layernorm", (HIDDEN,)),
                ("mlp.gate_proj", (INNER, HIDDEN)), ("mlp.up_proj", (INNER, HIDDEN)),
                ("mlp.down_proj", (HIDDEN, INNER))):
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)


def planted_rows(name):
    """Values of the first rows of a tensor, as bfloat16 bits."""
    rng = np.random.default_rng(len(name))
    values = rng.normal(size=(4, dict(shapes())[name][1])).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def make_model(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 32,
        "num_key_value_heads": KV // 64, "head_dim": 64, "vocab_size": VOCAB,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    header, offset, begins = {}, 0, {}
    for name, shape in shapes():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        begins[name], offset = offset, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name in PLANTED:
            file.seek(start + begins[name])
            file.write(planted_rows(name).tobytes())
        file.truncate(start + offset)
    return start + offset


def convert(source, out, limit):
    """Exit status and messages of a conversion within `limit` bytes."""
    def cap():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(
        [BIN, "convert", source, "-o", out, "--method", "static", "--target-bpw", "4.5",
         "--candidate-bits", "4,8", "--threads", "2"],
        capture_output=True, text=True, timeout=600, preexec_fn=cap)
    return done.returncode, done.stdout + done.stderr


def is_right(out):
    """What was planted is quantized as MLX does it; the rest is zero."""
    import mlx.core as mx

    config = json.loads((out / "config.json").read_text())["quantization"]
    weights = mx.load(str(out / "model.safetensors"))
    for name in PLANTED:
        module = name.removesuffix(".weight")
        bits = config[module]["bits"]
        rows = mx.array(planted_rows(name)).view(mx.bfloat16)
        for part, expected in zip(("weight", "scales", "biases"), mx.quantize(rows, 64, bits)):
            found = weights[f"{module}.{part}"]
            assert mx.array_equal(found[:4], expected).item(), (name, part, bits)
    assert len(weights) == sum(3 if len(shape) == 2 else 1 for _, shape in shapes())


def main():
    with scratch() as folder:
        tmp = Path(folder)
        size = make_model(tmp / "source")
        largest = max(2 * int(np.prod(shape)) for _, shape in shapes())
        n_refused, smallest, with_numbers = 0, None, []
        for limit in (800, 600, 500, 450, 400, 350, 300, 270, 255, 250, 245, 200):
            assert limit * MIB < size, "the model fits: the test shows nothing"
            status, text = convert(tmp / "source", tmp / "out", limit * MIB)
            print(f"{limit} MiB of address space for a model of {size / MIB:.0f} MiB: {status}",
                  text.strip().splitlines()[-1][:160])
            assert status in (0, 7), (limit, status, text[-500:])
            if status == 0:
                assert n_refused == 0, "refused with more memory"
                smallest = limit
                is_right(tmp / "out")
                subprocess.run(["rm", "-r", tmp / "out"], check=True)
                continue
            n_refused += 1
            assert os.listdir(tmp) == ["source"], os.listdir(tmp)
            if re.search(r" thread .*\(--threads\)", text):
                continue  # the stack of one is what did not fit
            needed = re.search(r"needs (\d+) MiB of memory, (\d+) MiB are available", text)
            assert needed and int(needed[2]) < int(needed[1]), text
            assert int(needed[1]) <= 2 * largest / MIB + 65, text
            with_numbers.append(limit)
        assert smallest and n_refused and {300, 200} <= set(with_numbers), with_numbers


main()
