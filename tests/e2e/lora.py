"""optiq lora, and --adapter of generate, eval and bench, as a user runs them."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))

from _support import DRIVERS, MODEL, optiq, run, scratch

DATA = MODEL / "eval_arithmetic.jsonl"
KL = ("--task", "kl", "--reference", MODEL, "--data", DATA, "--limit", "3")


def make_adapter(folder, seed):
    run(DRIVERS / "adapter_driver", "write", MODEL, folder, seed)
    return folder


def mean_kl(folder, model, *more):
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    optiq("eval", model, *KL, "--json", result, "--progress", "none", *more)
    return json.loads(result.read_text())


def info(folder):
    return json.loads(optiq("lora", "info", folder, "--json")[0])


def check_info(one):
    out, _ = optiq("lora", "info", one)
    assert "format of optiq" in out and "rank          1 to 5" in out, out
    found = info(one)
    module = found["modules"]["language_model.model.layers.3.self_attn.q_proj"]
    assert 1 <= module["rank"] <= 5 and abs(module["scale"] * module["rank"] - 2) < 1e-6
    assert found["parameters"] == sum(
        m["rank"] * (m["in"] + m["out"]) for m in found["modules"].values()
    )


def check_running(folder, one, two):
    prompt = ("generate", MODEL, "-p", "What is 7 times 8?", "--temp", "0", "--max-tokens", "8")
    plain, _ = optiq(*prompt)
    adapted, _ = optiq(*prompt, "--adapter", one)
    assert adapted != plain
    named, _ = optiq(*prompt, "--adapter", f"name={one}")
    assert named == adapted
    moved = mean_kl(folder, MODEL, "--adapter", one)
    assert moved["mean_kl"] > 1e-3 and str(one) in moved["model"], moved
    # Both at once are what merged ones are: the same products, added in turn.
    both = mean_kl(folder, MODEL, "--adapter", one, "--adapter", two)["mean_kl"]
    optiq("lora", "merge", one, two, "-o", folder / "both")
    merged = mean_kl(folder, MODEL, "--adapter", folder / "both")["mean_kl"]
    assert both == merged, (both, merged)
    optiq("lora", "merge", one, two, "--weights", "1,0", "-o", folder / "first")
    first = mean_kl(folder, MODEL, "--adapter", folder / "first")["mean_kl"]
    assert abs(first - moved["mean_kl"]) < 1e-5 * first, (first, moved)
    optiq("bench", MODEL, "--adapter", one, "--prompt", "16", "--gen", "4", "--repeats", "1")


def check_fuse(folder, one):
    """A dense model holds the adapter as it is; a quantized one loses what its
    rounding loses, which the command says."""
    out, _ = optiq("lora", "fuse", MODEL, one, "-o", folder / "dense", "--n-calibration", "1")
    assert "KL" in out, out
    moved = mean_kl(folder, MODEL, "--adapter", one)["mean_kl"]
    fused = mean_kl(folder, folder / "dense")["mean_kl"]
    assert abs(fused - moved) < 0.02 * moved, (fused, moved)
    four = folder / "four"
    optiq("convert", MODEL, "--method", "uniform", "--bits", "4", "-o", four, "--progress", "none")
    out, _ = optiq("lora", "fuse", four, one, "-o", folder / "fused4", "--calibration", DATA, "--n-calibration", "1")
    loss = float(out.split("KL")[1].split()[0])
    moved = mean_kl(folder, four, "--adapter", one)["mean_kl"]
    fused = mean_kl(folder, folder / "fused4")["mean_kl"]
    print(f"4 bits: KL {moved:.2g} with the adapter, {fused:.2g} fused, of each other {loss:.2g}")
    assert 0 < loss < 0.1 and abs(fused - moved) < 0.1, (loss, fused, moved)


def refused(status, says, *arguments):
    _, error = optiq(*arguments, expect=status)
    assert says in error, (says, error)


def check_refusals(folder, one):
    refused(3, "adapter_config.json", "lora", "info", MODEL)
    refused(2, "one for each", "lora", "merge", one, "--weights", "1,2", "-o", folder / "x")
    refused(2, "holds the source", "lora", "merge", one, "-o", one)
    refused(3, "adapter_config.json", "generate", MODEL, "-p", "x", "--adapter", MODEL)
    refused(2, "--adapter", "convert", MODEL, "--adapter", one)
    refused(2, "--adapter", "kv-cache", MODEL, "--adapter", one)
    beside = folder / "beside"
    beside.mkdir()
    for file in MODEL.glob("*"):
        (beside / file.name).symlink_to(file.resolve())
    (beside / "adapter_config.json").write_text("{}")
    for command in ("convert", "kv-cache"):
        refused(4, "adapter beside the weights", command, beside, "-o", folder / "y")


def main():
    with scratch() as folder:
        folder = Path(folder)
        one = make_adapter(folder / "one", 1)
        two = make_adapter(folder / "two", 900)
        check_info(one)
        check_refusals(folder, one)
        check_running(folder, one, two)
        check_fuse(folder, one)


main()
