"""Shared by the scripts that compare the MLX device with the CPU device."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors.numpy import load_file, save_file

from _families import make_model
from _family_cases import VOCABULARY
from _support import DRIVERS, mean_kl, optiq, run, scratch

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from _small_model import write_tokenizer

BOUND = 1e-6
# Longer than a block of 64 tokens and than the windows of the families.
LENGTHS = {"a": 90, "b": 31}
TEXT = "The MLX device and the CPU device read the same words, and must say the same of them.\n" * 3


def logits_on(device, model, ids, chunk):
    """Of all sequences: prefilled in chunks, or (0) a batch token by token."""
    with scratch() as folder:
        out = Path(folder) / "logits.safetensors"
        run(DRIVERS / "logits_driver", model, ids, chunk, "exact", out, device)
        return load_file(out)


def worst_kl(model, ids, chunks):
    """The MLX device's mean KL from the CPU's, the worst way to run."""
    worst = 0.0
    for chunk in chunks:
        expected = logits_on("cpu", model, ids, chunk)
        found = logits_on("mlx", model, ids, chunk)
        spread = min(float(np.std(rows)) for rows in expected.values())
        assert spread > 0.3, f"logits of spread {spread} prove nothing"
        worst = max(worst, *(mean_kl(expected[k], found[k]) for k in expected))
    return worst


def eval_kl(model, folder, *flags):
    """The same of a text, by the command."""
    (folder / "text.txt").write_text(TEXT)
    optiq("eval", model, "--task", "kl", "--reference", model, "--reference-device", "cpu", "--device", "mlx",
          "--compute", "exact", "--data", folder / "text.txt", "--seq-len", "80", "--progress", "none", "--json",
          folder / "kl.json", *flags)  # fmt: skip
    result = json.loads((folder / "kl.json").read_text())
    assert result["device"] == "mlx" and result["reference_device"] == "cpu", result
    return result["mean_kl"]


def answers_agree(model, *flags):
    """Greedy answers, token by token, are the same."""
    def answer(device):
        return optiq("generate", model, "--raw", "-p", TEXT[:70], "--max-tokens", "20", "--temp", "0", "--compute",
                     "exact", "--device", device, *flags)[0]  # fmt: skip
    return answer("mlx") == answer("cpu")


def write_ids(path, seed=7):
    random = np.random.default_rng(seed)
    save_file({k: random.integers(0, VOCABULARY, n, dtype=np.int32) for k, n in LENGTHS.items()}, path)
    return path


def compare_family(name, module, config, quantization, chunks, commands=True):
    """The worst mean KL; with `commands` by `eval` too, and `generate` must
    give the same answers."""
    with scratch() as folder:
        folder = Path(folder)
        mx.random.seed(7)
        make_model(module, config, quantization, folder / "model")
        write_tokenizer(folder / "model")
        ids = write_ids(folder / "ids.safetensors")
        worst = worst_kl(folder / "model", ids, chunks)
        if commands:
            worst = max(worst, eval_kl(folder / "model", folder))
            assert answers_agree(folder / "model"), f"{name}: other answers"
    print(f"{name}: mean KL {worst:.3g}")
    return worst
