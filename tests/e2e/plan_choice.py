"""How optiq convert chooses: moves between whole plans, a target of KL, matrices that stay as
they are. On a model of one layer at random weights; on tiny-qwen3.5, with mlx-lm as the judge, the
last."""

import json
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import MODEL, assert_same_bytes, mean_kl, optiq, scratch

# Eight chunks are the least that moves are judged by.
BASE = ["--candidate-bits", "2,3,4,5,6,8", "--n-calibration", "8", "--protect", "off"]
PLAN = [*BASE, "--target-file-bpw", "3.5"]


def convert(source, out, *flags, **options):
    _, notes = optiq("convert", source, "-o", out, *flags, "--json", f"{out}.json", **options)
    return json.loads(Path(f"{out}.json").read_text()), notes


def moves_are_tried_within_the_budget(small, tmp, env):
    result, _ = convert(small, tmp / "moved", *PLAN, "--measure-budget", "12", env=env)
    exchange = result["exchange"]
    assert exchange["tried"] > 0 and exchange["kept"] <= exchange["tried"], exchange
    # By the mean over tokens; moves are judged by logarithms, chunk by chunk.
    assert result["measured_kl"] < 1.05 * exchange["kl_before"], exchange
    assert exchange["kept"] > 0 or result["measured_kl"] == exchange["kl_before"], exchange
    assert result["file_bpw"] <= 3.5
    # A cache that has everything changes nothing, nor does one that has nothing.
    convert(small, tmp / "again", *PLAN, "--measure-budget", "12", env=env)
    assert_same_bytes(tmp / "moved", tmp / "again")
    convert(small, tmp / "fresh", *PLAN, "--measure-budget", "12",
            env={"OPTIQ_CACHE_DIR": str(tmp / "other-cache")})
    assert_same_bytes(tmp / "moved", tmp / "fresh")
    none, _ = convert(small, tmp / "unmoved", *PLAN, "--measure-budget", "0", env=env)
    assert none.get("exchange") is None, none


def seconds_become_forwards_that_can_be_said(small, tmp, env):
    _, notes = convert(small, tmp / "timed", *PLAN, "--time-budget", "3", env=env)
    forwards = re.search(r"--measure-budget (\d+) gives the same", notes)
    assert forwards, notes
    convert(small, tmp / "counted", *PLAN, "--measure-budget", forwards[1], env=env)
    assert_same_bytes(tmp / "timed", tmp / "counted")


def the_smallest_model_within_a_kl(small, tmp, env):
    sizes = []
    for target in (0.3, 0.05):
        result, _ = convert(small, tmp / f"kl{target}", *BASE, "--target-kl", target, env=env)
        assert result["measured_kl"] <= target, result["measured_kl"]
        sizes.append(result["file_bytes"])
    assert sizes[0] < sizes[1], sizes
    # A step of the resolution below, the plan that is measured there is no longer good enough.
    smaller, _ = convert(small, tmp / "smaller", *BASE, "--target-size", int(sizes[1] * 0.95),
                         "--measure-budget", "0", env=env)
    assert smaller["measured_kl"] > 0.05, smaller["measured_kl"]
    _, error = optiq("convert", small, "-o", tmp / "no", *BASE, "--target-kl", "1e-9", expect=2,
                     env=env)
    assert "--target-kl" in error and "nats per token" in error, error
    _, notes = optiq("convert", small, *PLAN[:2], "--n-calibration", "9", "--target-kl", "0.1",
                     "--dry-run", env=env)
    assert "not known before" in notes, notes


def tied_matrices_have_one_width(small, tmp, env):
    untied = []
    for target in ("3.7", "4.2", "4.9", "5.6"):
        for tie in ("off", "on"):
            result, _ = convert(small, tmp / f"tie_{tie}", *BASE, "--sensitivity", "fast",
                                "--target-file-bpw", target, "--tie", tie, "--overwrite", env=env)
            bits = {name.split(".")[-1]: layer["bits"]
                    for name, layer in result["per_layer"].items()}
            widths = [len({bits[name] for name in fused}) for fused in
                      (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))]
            assert tie == "off" or widths == [1, 1], (target, widths)
            untied += widths if tie == "off" else []
    assert max(untied) > 1, untied


def a_matrix_may_stay_as_it_is(tmp, env):
    import mlx.core as mx
    from mlx_lm import load

    out = tmp / "dense"
    result, _ = convert(MODEL, out, "--candidate-bits", "4,8,16", "--target-file-bpw", "10", "--protect",
                        "off", "--n-calibration", "2", env=env)
    widths = {name: layer["bits"] for name, layer in result["per_layer"].items()}
    assert {8, 16} <= set(widths.values()), widths
    config = json.loads((out / "config.json").read_text())["quantization"]
    for name, bits in widths.items():
        assert (config[name] is False) == (bits == 16), name
    optiq("eval", out, "--task", "kl", "--reference", MODEL, "--data",
          MODEL / "eval_arithmetic.jsonl", "--limit", "4", "--json", tmp / "kl.json")
    ours = json.loads((tmp / "kl.json").read_text())["mean_kl"]
    assert 0 < ours < 1e-3, ours
    model, tokenizer = load(str(out))
    for name, module in model.named_modules():
        if name in widths:
            assert getattr(module, "bits", 16) == widths[name], name
    tokens = mx.array(tokenizer.encode("Anna has 24 apples. Ben gives Anna 18 apples."))[None]
    reference, _ = load(str(MODEL))
    kl = mean_kl(*(np.array(m(tokens).astype(mx.float32))[0] for m in (reference, model)))
    assert kl < 1e-2, kl


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        small = tmp / "small"
        write_small_model(small)
        moves_are_tried_within_the_budget(small, tmp, env)
        seconds_become_forwards_that_can_be_said(small, tmp, env)
        the_smallest_model_within_a_kl(small, tmp, env)
        tied_matrices_have_one_width(small, tmp, env)
        a_matrix_may_stay_as_it_is(tmp, env)
    print("ok")


if __name__ == "__main__":
    main()
