"""What convert writes means the same to stock mlx-lm and to us.

tiny-qwen3.5 is converted to mixed widths, to mixed widths in groups of mixed
sizes, and to one width with the codes of error feedback; a float32 copy keeps the
codes and widens scales, biases and norms, so that neither side rounds. Logits, and
64 greedy tokens of the first two, must agree.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm import load, stream_generate
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, MODEL, mean_kl, optiq, run, scratch

BOUND = 1e-6
PLANS = {
    "widths": ["--target-bpw", "4.5", "--candidate-bits", "4,8"],
    "groups": ["--target-file-bpw", "4.4", "--candidate-bits", "3,4,8", "--group-size",
               "32,64,128", "--protect", "off"],
}
N_TOKENS = 512
QUESTIONS = 3


def float32_copy(model, folder):
    shutil.copytree(model, folder)
    for shard in folder.glob("model*.safetensors"):
        tensors = {
            k: v if v.dtype == mx.uint32 else v.astype(mx.float32)
            for k, v in mx.load(str(shard)).items()
        }
        mx.eval(tensors)
        mx.save_safetensors(str(shard), tensors)
    return folder


def greedy_tokens(model, tokenizer, prompt, n):
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True
    )
    out = [r.token for r in stream_generate(model, tokenizer, ids, max_tokens=n)]
    return out[:-1] if out[-1] in tokenizer.eos_token_ids else out


def compare_formats(folder, model):
    """What the modules that mlx-lm made have, and what metadata.json says."""
    planned = json.loads((folder / "optiq" / "metadata.json").read_text())["per_layer"]
    found = {name: (module.bits, module.group_size)
             for name, module in model.named_modules() if hasattr(module, "bits")}
    assert found == {n: (m["bits"], m["group_size"]) for n, m in planned.items()}
    assert len(set(found.values())) > 1, found


def compare_logits(folder, wide, model, tokenizer):
    text = (MODEL / "eval_arithmetic.jsonl").read_text()
    ids = np.array(tokenizer.encode(text)[:N_TOKENS], dtype=np.int32)
    reference = np.array(model(mx.array(ids)[None])[0])
    save_file({"ids": ids}, folder / "ids.safetensors")
    logits = folder / f"logits-{wide.name}.safetensors"
    run(DRIVERS / "logits_driver", wide, folder / "ids.safetensors", 512, "exact", logits)
    kl = mean_kl(reference, load_file(logits)["ids"])
    print(f"{N_TOKENS} tokens: mean KL {kl:.3g} to mlx-lm")
    assert kl <= BOUND, kl


def compare_tokens(wide, model, tokenizer):
    rows = [json.loads(r) for r in (MODEL / "eval_recall.jsonl").open()][:QUESTIONS]
    for row in rows:
        expected = greedy_tokens(model, tokenizer, row["question"], 64)
        out, _ = optiq("generate", wide, "-p", row["question"], "--temp", "0",
                       "--max-tokens", "64", "--compute", "exact", "--json")
        assert json.loads(out)["tokens"] == expected, (row, expected)
    prompt = "In the beginning there was a small village by the sea, and"
    out, _ = optiq("generate", wide, "--raw", "-p", prompt, "--temp", "0",
                   "--max-tokens", "64", "--compute", "exact", "--json")
    ids = tokenizer.encode(prompt)
    expected = [r.token for r in stream_generate(model, tokenizer, ids, max_tokens=64)]
    assert len(expected) == 64
    assert json.loads(out)["tokens"] == expected
    print(f"greedy tokens equal: {QUESTIONS} answers and 64 tokens of prose")


def main():
    with scratch() as folder:
        folder = Path(folder)
        for name, flags in PLANS.items():
            optiq("convert", MODEL, "-o", folder / name, *flags, "--n-calibration", "2",
                  env={"OPTIQ_CACHE_DIR": str(folder / "cache")})
            wide = float32_copy(folder / name, folder / f"wide-{name}")
            model, tokenizer = load(str(wide))
            compare_formats(folder / name, model)
            compare_logits(folder, wide, model, tokenizer)
            compare_tokens(wide, model, tokenizer)
        fed_back = folder / "fed_back"
        optiq("convert", MODEL, "-o", fed_back, "--method", "uniform", "--bits", "3",
              "--rounding", "gptq", "--n-calibration", "2",
              env={"OPTIQ_CACHE_DIR": str(folder / "cache")})
        wide = float32_copy(fed_back, folder / "wide_fed_back")
        compare_logits(folder, wide, *load(str(wide)))


main()
