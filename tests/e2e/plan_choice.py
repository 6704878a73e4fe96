"""How optiq convert chooses: moves between whole plans, a target of KL, matrices that stay as
they are. On tiny-qwen3.5; mlx-lm judges the last."""

import filecmp
import json
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import MODEL, mean_kl, optiq, scratch

# Eight chunks are the least that moves are judged by.
BASE = ["--candidate-bits", "2,3,4,5,6,8", "--n-calibration", "8", "--protect", "off"]
PLAN = [*BASE, "--target-file-bpw", "3.5"]


def convert(out, *flags, **options):
    _, notes = optiq("convert", MODEL, "-o", out, *flags, "--json", f"{out}.json", **options)
    return json.loads(Path(f"{out}.json").read_text()), notes


def same_bytes(a, b):
    names = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    _, different, errors = filecmp.cmpfiles(a, b, names, shallow=False)
    assert not different and not errors, (different, errors)


def moves_are_tried_within_the_budget(tmp, env):
    result, _ = convert(tmp / "moved", *PLAN, "--measure-budget", "12", env=env)
    exchange = result["exchange"]
    assert exchange["tried"] > 0 and exchange["kept"] <= exchange["tried"], exchange
    # By the mean over tokens; moves are judged by logarithms, chunk by chunk.
    assert result["measured_kl"] < 1.05 * exchange["kl_before"], exchange
    assert exchange["kept"] > 0 or result["measured_kl"] == exchange["kl_before"], exchange
    assert result["file_bpw"] <= 3.5
    # A cache that has everything changes nothing, nor does one that has nothing.
    convert(tmp / "again", *PLAN, "--measure-budget", "12", env=env)
    same_bytes(tmp / "moved", tmp / "again")
    convert(tmp / "fresh", *PLAN, "--measure-budget", "12",
            env={"OPTIQ_CACHE_DIR": str(tmp / "other-cache")})
    same_bytes(tmp / "moved", tmp / "fresh")
    none, _ = convert(tmp / "unmoved", *PLAN, "--measure-budget", "0", env=env)
    assert none.get("exchange") is None, none


def seconds_become_forwards_that_can_be_said(tmp, env):
    _, notes = convert(tmp / "timed", *PLAN, "--time-budget", "3", env=env)
    forwards = re.search(r"--measure-budget (\d+) gives the same", notes)
    assert forwards, notes
    convert(tmp / "counted", *PLAN, "--measure-budget", forwards[1], env=env)
    same_bytes(tmp / "timed", tmp / "counted")


def the_smallest_model_within_a_kl(tmp, env):
    sizes = []
    for target in (0.3, 0.05):
        result, _ = convert(tmp / f"kl{target}", *BASE, "--target-kl", target, env=env)
        assert result["measured_kl"] <= target, result["measured_kl"]
        sizes.append(result["file_bytes"])
    assert sizes[0] < sizes[1], sizes
    # A step of the resolution below, the plan that is measured there is no longer good enough.
    smaller, _ = convert(tmp / "smaller", *BASE, "--target-size", int(sizes[1] * 0.95),
                         "--measure-budget", "0", env=env)
    assert smaller["measured_kl"] > 0.05, smaller["measured_kl"]
    _, error = optiq("convert", MODEL, "-o", tmp / "no", *BASE, "--target-kl", "1e-9", expect=2,
                     env=env)
    assert "--target-kl" in error and "nats per token" in error, error
    _, notes = optiq("convert", MODEL, *PLAN[:2], "--n-calibration", "9", "--target-kl", "0.1",
                     "--dry-run", env=env)
    assert "not known before" in notes, notes


def a_matrix_may_stay_as_it_is(tmp, env):
    import mlx.core as mx
    from mlx_lm import load

    out = tmp / "dense"
    result, _ = convert(out, "--candidate-bits", "4,8,16", "--target-file-bpw", "10", "--protect",
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
        moves_are_tried_within_the_budget(tmp, env)
        seconds_become_forwards_that_can_be_said(tmp, env)
        the_smallest_model_within_a_kl(tmp, env)
        a_matrix_may_stay_as_it_is(tmp, env)
    print("ok")


if __name__ == "__main__":
    main()
