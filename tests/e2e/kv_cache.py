"""optiq kv-cache as a user runs it, on tiny-qwen3.5: files, budget, errors, and
the commands that take its result."""

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _inspect_page import read_page
from _support import MODEL, optiq, scratch

FAST = ["--n-samples", "2", "--seq-len", "160", "--progress", "none"]
LAYERS = [3, 7]  # of tiny-qwen3.5: 2 heads of 64
BF16 = 2 * 2 * 2 * 64 * 2  # bytes per token


def load(path):
    return json.loads(path.read_text())


def affine_bytes(bits):
    """Of one side of one layer, per token: codes, scales and biases."""
    return 2 * (64 * bits / 8 + 4)


def turbo_bytes(bits):
    return 2 * (64 * bits / 8 + 2)


def config_bytes(config):
    total = 0
    for entry in config:
        side = turbo_bytes if entry.get("method") == "turbo" else affine_bytes
        total += side(entry["bits"]) + side(entry.get("value_bits", entry["bits"]))
    return total


def writes_the_originals_files(tmp, env):
    out = tmp / "uniform"
    text, _ = optiq("kv-cache", MODEL, "-o", out, "--candidate-bits", "4,8", "--target-bits", "6",
                    *FAST, "--json", tmp / "r.json", env=env)  # fmt: skip
    assert sorted(os.listdir(out)) == ["kv_config.json", "kv_sensitivity.json"]
    config = load(out / "kv_config.json")
    assert [entry["layer_idx"] for entry in config] == LAYERS
    # One layer at 8 and one at 4 bits fill the budget.
    assert sorted(entry["bits"] for entry in config) == [4, 8], config
    for entry in config:
        assert list(entry) == ["layer_idx", "bits", "group_size"] and entry["group_size"] == 64
    sensitivity = load(out / "kv_sensitivity.json")
    for layer, entry in zip(LAYERS, sensitivity, strict=True):
        assert entry["layer_idx"] == layer and entry["layer_name"] == f"model.layers.{layer}"
        assert entry["n_kv_heads"] == 2 and entry["head_dim"] == 64
        assert entry["sensitivities"]["4"] > entry["sensitivities"]["8"] > 0
    # The wider layer is the one that suffers more.
    wide = next(i for i, entry in enumerate(config) if entry["bits"] == 8)
    falls = [e["sensitivities"]["4"] - e["sensitivities"]["8"] for e in sensitivity]
    assert falls[wide] == max(falls), (config, falls)
    result = load(tmp / "r.json")
    assert result["bytes_per_token"] == config_bytes(config)
    assert result["bf16_bytes_per_token"] == BF16
    values = 2 * 2 * 2 * 64
    assert abs(result["bits_per_value"] - 8 * config_bytes(config) / values) < 1e-9
    for mark in ("true width", "bytes per token", "whole model", str(out)):
        assert mark in text, (mark, text)


def splits_within_the_budget(tmp, env):
    """Every method and both sides; the whole model is no worse than uniform."""
    budget = 2 * 2 * turbo_bytes(3)
    out = tmp / "split"
    arguments = ["kv-cache", MODEL, "--methods", "affine,turbo", "--split-kv",
                 "--candidate-bits", "2,3,4,8", "--target-bytes-per-token", int(budget), *FAST]
    optiq(*arguments, "-o", out, "--json", tmp / "split.json", env=env)
    config = load(out / "kv_config.json")
    assert config_bytes(config) <= budget, config
    for entry in load(out / "kv_sensitivity.json"):
        assert not entry["sensitivities"]  # the sides stand in candidates
        widths = {(c["method"], c["key_bits"], c["value_bits"]) for c in entry["candidates"]}
        expected = {("affine", b, 0) for b in (2, 3, 4, 8)} | {("turbo", b, 0) for b in (2, 3, 4)}
        assert widths == expected | {(m, v, k) for m, k, v in expected}, widths
    # Measured again from the journal: the same bytes.
    optiq(*arguments, "-o", tmp / "again", env=env)
    for name in ("kv_config.json", "kv_sensitivity.json"):
        assert (tmp / "again" / name).read_bytes() == (out / name).read_bytes(), name
    return out


def others_take_it(tmp, env, out):
    kv = ["--kv-config", out / "kv_config.json"]
    text, _ = optiq("generate", MODEL, *kv, "--temp", "0", "--max-tokens", "8",
                    "-p", "Anna has 24 apples.", env=env)  # fmt: skip
    assert text.strip()
    optiq("eval", MODEL, *kv, "--task", "kl", "--reference", MODEL, "--limit", "4",
          "--data", MODEL / "eval_arithmetic.jsonl", "--json", tmp / "kl.json", env=env)  # fmt: skip
    assert load(tmp / "kl.json")["mean_kl"] > 1e-6
    optiq("report", MODEL, "--kv", out, "-o", tmp / "page.html", env=env)
    _, page = read_page(tmp / "page.html")
    bytes_per_token = load(tmp / "split.json")["bytes_per_token"]
    assert f"take {bytes_per_token:g} bytes per token, bf16 takes {BF16}" in page, page
    optiq("report", MODEL, "--kv", tmp, "-o", tmp / "page.html", env=env, expect=3)


def refuses(expect, words, *arguments, env):
    _, message = optiq("kv-cache", *arguments, env=env, expect=expect)
    for word in [words] if isinstance(words, str) else words:
        assert word in message, (word, message)


def says_what_is_wrong(tmp, env):
    new = ["-o", tmp / "new", "--progress", "none"]
    for expect, words, more in (
        (4, ("found 7", "affine at 7 bits"), ["--candidate-bits", "4,7"]),
        (4, "found 2.5", ["--candidate-bits", "2.5,4"]),
        (4, "at most 5", ["--methods", "turbo", "--candidate-bits", "4,8"]),
        (2, "found 0", ["--candidate-bits", "0,4"]),
        (2, "found 'kivi'", ["--methods", "kivi"]),
        (2, "found 3.5", ["--target-bits", "3.5"]),
        (2, "at least 288", ["--target-bytes-per-token", "287"]),
        (2, "found 48", ["--group-size", "48"]),
        (2, "--kv-seed", ["--kv-seed", "1"]),
        (2, "--group-size", ["--methods", "turbo", "--group-size", "64"]),
        (2, "found 1, expected 2 to 4096", ["--seq-len", "1"]),
        (2, "a plan has one target", ["--target-bits", "4", "--target-bytes-per-token", "300"]),
        (3, "nowhere.txt", ["--calibration", "nowhere.txt"]),
    ):
        refuses(expect, words, MODEL, *new, *more, env=env)
        assert not (tmp / "new").exists(), more


def keeps_what_is_there(tmp, env):
    out = tmp / "uniform"
    before = (out / "kv_config.json").read_bytes()
    refuses(2, "--overwrite", MODEL, "-o", out, *FAST, env=env)
    (out / "notes.txt").write_text("mine")
    refuses(2, "found 'notes.txt'", MODEL, "-o", out, "--overwrite", *FAST, env=env)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "kv_config.json").read_bytes() == before
    (out / "notes.txt").unlink()
    optiq("kv-cache", MODEL, "-o", out, "--overwrite", *FAST, env=env)
    assert [entry["bits"] for entry in load(out / "kv_config.json")] == [4, 4]


def a_config_of_another_model_is_refused(tmp, env):
    config = [{"layer_idx": 0, "bits": 4, "group_size": 64}]
    (tmp / "other.json").write_text(json.dumps(config))
    _, message = optiq("generate", MODEL, "--kv-config", tmp / "other.json", "-p", "x",
                       env=env, expect=2)  # fmt: skip
    assert "without a K/V cache" in message, message


def an_output_without_attention_is_refused(tmp, env):
    """A model whose attention adds nothing: every o_proj is zero."""
    import mlx.core as mx

    silent = tmp / "silent"
    shutil.copytree(MODEL, silent)
    outputs = tuple(f".layers.{i}.self_attn.o_proj.weight" for i in LAYERS)
    seen = 0
    for file in silent.glob("model*.safetensors"):
        tensors = mx.load(str(file))
        for name in [n for n in tensors if n.endswith(outputs)]:
            tensors[name] = mx.zeros_like(tensors[name])
            seen += 1
        mx.eval(tensors)
        mx.save_safetensors(str(file), tensors, metadata={"format": "mlx"})
    assert seen == len(LAYERS), seen
    refuses(2, "does not depend on the cache", silent, "-o", tmp / "new", *FAST, env=env)
    assert not (tmp / "new").exists()


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        writes_the_originals_files(tmp, env)
        others_take_it(tmp, env, splits_within_the_budget(tmp, env))
        says_what_is_wrong(tmp, env)
        keeps_what_is_there(tmp, env)
        a_config_of_another_model_is_refused(tmp, env)
        an_output_without_attention_is_refused(tmp, env)


main()
