"""--device as a user meets it, on tiny-qwen3.5: MLX's device says what the
CPU's says, every figure names its device, and what it cannot do it refuses."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, optiq, run, scratch

QUESTIONS = MODEL / "eval_arithmetic.jsonl"
SHORT = ["--n-samples", "1", "--seq-len", "70", "--candidate-bits", "3,8", "--progress", "none"]


def load(path):
    return json.loads(path.read_text())


def answers_are_the_same():
    def answer(device):
        text, _ = optiq("generate", MODEL, "-p", "What is 7 times 8?", "--max-tokens", "12", "--temp", "0",
                        "--compute", "exact", "--device", device, "--json")  # fmt: skip
        result = json.loads(text)
        assert result["device"] == device, result
        return result["text"], result["tokens"]
    assert answer("mlx") == answer("cpu")


def logits_are_the_same(tmp):
    for cache in ([], ["--kv-bits", "8"], ["--kv-bits", "4,3", "--kv-method", "turbo"]):
        out = tmp / "kl.json"
        optiq("eval", MODEL, "--task", "kl", "--reference", MODEL, "--reference-device", "cpu", "--device", "mlx",
              "--data", QUESTIONS, "--limit", "2", "--progress", "none", "--json", out, *cache)  # fmt: skip
        found = load(out)
        assert (found["device"], found["reference_device"]) == ("mlx", "cpu"), found
        optiq("eval", MODEL, "--task", "kl", "--reference", MODEL, "--data", QUESTIONS, "--limit", "2",
              "--progress", "none", "--json", out, *cache)  # fmt: skip
        expected = load(out)
        assert (expected["device"], expected["reference_device"]) == ("cpu", "cpu"), expected
        # Of a quantized cache both find what it costs.
        difference = abs(found["mean_kl"] - expected["mean_kl"])
        assert difference <= 1e-6 + 1e-3 * expected["mean_kl"], (cache, found["mean_kl"], expected["mean_kl"])
        assert cache or found["mean_kl"] <= 1e-6, found["mean_kl"]


def kv_cache_measures(tmp, env):
    def measure(device):
        out = tmp / device
        optiq("kv-cache", MODEL, "-o", out, "--device", device, *SHORT, "--json", tmp / "r.json", env=env)
        assert load(tmp / "r.json")["device"] == device
        return load(out / "kv_sensitivity.json"), load(out / "kv_config.json")
    found, found_config = measure("mlx")
    expected, expected_config = measure("cpu")
    assert found_config == expected_config
    for a, b in zip(found, expected, strict=True):
        for bits, kl in b["sensitivities"].items():
            assert abs(a["sensitivities"][bits] - kl) <= 1e-6 + 0.01 * kl, (a, b)


def every_figure_names_its_device(tmp):
    text, _ = optiq("bench", MODEL, "--device", "mlx", "--compute", "exact", "--prompt", "16", "--gen", "4", "--repeats",
                    "1", "--json", tmp / "bench.json")  # fmt: skip
    assert "mlx" in text.splitlines()[0], text
    assert load(tmp / "bench.json")["device"] == "mlx"
    devices = json.loads(optiq("doctor", "--json")[0])["devices"]
    assert set(devices) == {"cpu", "mlx", "auto"}, devices
    assert devices["auto"] in ("cpu", "mlx"), devices
    assert "device" in optiq("doctor")[0].lower()


def refuses():
    _, error = run(BIN, "generate", MODEL, "-p", "x", "--device", "gpu", expect=2)
    assert "gpu" in error, error
    _, error = run(BIN, "generate", MODEL, "-p", "x", "--device", "mlx", "--compute", "int8", expect=4)
    assert "int8" in error and "mlx" in error, error
    _, error = run(BIN, "bench", MODEL, "--device", "mlx", "--profile", expect=4)
    assert "--profile on device mlx" in error, error


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"XDG_CACHE_HOME": str(tmp / "cache"), "HOME": os.environ.get("HOME", "")}
        answers_are_the_same()
        logits_are_the_same(tmp)
        kv_cache_measures(tmp, env)
        every_figure_names_its_device(tmp)
        refuses()


main()
