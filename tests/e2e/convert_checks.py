"""What convert refuses before it writes, what it checks before it publishes,
and that a finished conversion is not lost to what describes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_llama import CONFIG, make_tensors, write_model
from _support import BIN, MODEL, optiq, scratch

METHODS = {
    "uniform": ["--method", "uniform"],
    "static": ["--method", "static"],
    "optiq": ["--method", "optiq", "--n-calibration", "1"],
    "dry run": ["--method", "uniform", "--dry-run"],
}
# What a config of another size says: tensor, found and expected shape, key.
OTHER_SIZES = {
    "vocab_size": (4097, ["embed_tokens.weight", "[4096, 128]", "[4097, 128]", "vocab_size"]),
    "hidden_size": (256, ["embed_tokens.weight", "[4096, 128]", "[4096, 256]", "hidden_size"]),
    "intermediate_size": (192, ["gate_proj.weight", "[256, 128]", "[192, 128]", "intermediate_size"]),
    "num_attention_heads": (8, ["q_proj.weight", "[128, 128]", "[256, 128]", "num_attention_heads"]),
    "num_key_value_heads": (1, ["k_proj.weight", "[64, 128]", "[32, 128]", "num_key_value_heads"]),
    "num_hidden_layers": (1, ["model.layers.1.", "num_hidden_layers"]),
}


def refused(*arguments, says, code, env):
    _, error = optiq("convert", *arguments, expect=code, env=env)
    last = error.strip().splitlines()[-1]
    for part in says:
        assert part in last, (part, last)


def a_config_of_another_model_is_refused_by_every_method(tmp, env):
    source = write_model(tmp / "sizes" / "source", MODEL)
    for key, (value, says) in OTHER_SIZES.items():
        (source / "config.json").write_text(json.dumps({**CONFIG, key: value}))
        for name, flags in METHODS.items():
            refused(source, "-o", tmp / "sizes" / "out", *flags, says=says, code=5, env=env)
            assert os.listdir(tmp / "sizes") == ["source"], (key, name, os.listdir(tmp / "sizes"))


def a_result_that_does_not_run_is_not_published(tmp, env):
    for name, value in (("model.layers.1.input_layernorm.weight", np.nan), ("model.norm.weight", np.inf)):
        folder = tmp / name
        tensors = make_tensors(CONFIG)
        tensors[name].flat[0] = value
        source = write_model(folder / "source", MODEL, tensors=tensors)
        place = "layer 1" if "layers.1" in name else "the logits"
        refused(source, "-o", folder / "out", "--method", "uniform", says=[place, "not finite"], code=5, env=env)
        assert os.listdir(folder) == ["source"], os.listdir(folder)


def null_members_and_empty_blocks_are_no_quantization(tmp, env):
    blocks = ({"quantization_config": None}, {"quantization": None, "quantization_config": {}},
              {"quantization": {"group_size": 64, "bits": 4}})
    for i, members in enumerate(blocks):
        source = write_model(tmp / f"null{i}", MODEL, members)
        optiq("convert", source, "-o", tmp / f"null{i}-out", "--method", "uniform", env=env)
        written = json.loads((tmp / f"null{i}-out" / "config.json").read_text())
        assert written["quantization"]["bits"] == 4 and "lm_head" in written["quantization"]


def convert_bytes(*arguments, env):
    """As optiq("convert", ...), whose output need not be UTF-8."""
    done = subprocess.run([BIN, "convert", *arguments], env={**os.environ, **env}, capture_output=True, timeout=600)
    assert done.returncode == 0, (arguments, done.stderr)


def a_folder_of_any_bytes_is_converted(tmp, env):
    names = [b"mod\xe9l", b"two\nlines", "\N{PILE OF POO} model".encode(), b"x" * 200, b"-dash", b"quote'\"\\"]
    for number, name in enumerate(names):
        folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp / "bytes"), name)))
        source = write_model(folder, MODEL)
        out = tmp / f"bytes-out{number}"
        result = tmp / f"bytes{number}.json"
        convert_bytes("-m", source, "-o", out, "--method", "uniform", "--json", result, env=env)
        metadata = json.loads((out / "optiq" / "metadata.json").read_bytes().decode("utf-8"))
        assert metadata["base_model"] and "\n" not in metadata["base_model"], metadata["base_model"]
        json.loads(result.read_bytes().decode("utf-8"))
        (out / "README.md").read_bytes().decode("utf-8")
        # Into such a folder, too.
        into = Path(os.fsdecode(os.fsencode(tmp) + b"/into-" + name))
        convert_bytes("-m", source, "-o", into, "--method", "uniform", "--json", result, env=env)
        json.loads(result.read_bytes().decode("utf-8"))
        assert (into / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        a_config_of_another_model_is_refused_by_every_method(tmp, env)
        a_result_that_does_not_run_is_not_published(tmp, env)
        null_members_and_empty_blocks_are_no_quantization(tmp, env)
        a_folder_of_any_bytes_is_converted(tmp, env)


main()
