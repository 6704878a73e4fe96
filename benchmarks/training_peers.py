#!/usr/bin/env python3
"""`optiq lora train` beside mlx-lm's trainer on the same model directory, data,
ranks and tokens: one long text a step, cut at the sequence length.

    training_peers.py OPTIQ MODEL [--seq 512] [--iters 3] [--rank 8] [--grad-checkpoint]

MODEL is an MLX model directory (mlx-lm reads no GGUF). Run with the Python that
has mlx-lm; --only ours leaves it out, where its CPU backend takes too long. Both
train every linear of the layers. Prints tokens/s of each step's best, their
spread, and the peak resident set size.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TEXTS = Path(__file__).parent.parent / "models" / "tiny-qwen3.5" / "eval_arithmetic.jsonl"


def write_data(folder, length):
    rows = [json.loads(line) for line in TEXTS.open()]
    text = " ".join(f"{row['question']} {row['answer']}" for row in rows)
    # A token has a character at least.
    line = json.dumps({"text": (text * (1 + 8 * length // len(text)))[: 8 * length]}) + "\n"
    for name in ("train", "valid", "test"):
        (folder / f"{name}.jsonl").write_text(line * 4)


def run(command):
    """Output and peak RSS in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # The largest child so far: of the smaller one that runs first it is its own.
    return done.stdout, peak * 1024 if peak > before else None


def ours(args, folder):
    out = folder / "ours"
    checkpoint = ["--grad-checkpoint"] if args.grad_checkpoint else []
    _, peak = run([args.optiq, "lora", "train", args.model, "--data", folder, "-o", out, "--iters", args.iters,
                   "--batch-size", 1, "--max-seq-length", args.seq, "--rank", args.rank, "--rank-scaling", "constant",
                   "--save-every", args.iters, "--threads", args.threads, "--progress", "none", *checkpoint])  # fmt: skip
    steps = [json.loads(line) for line in (out / "train_log.jsonl").open()]
    return [step["tokens"] / step["seconds"] for step in steps], peak


# mlx-lm's own command, from where it has its arguments: it tells its speed to a
# callback.
MLX_LM = """
import json, sys
from types import SimpleNamespace
from mlx_lm import load, lora
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import load_dataset

class Rates(TrainingCallback):
    def on_train_loss_report(self, info):
        print("rate", info["tokens_per_second"], flush=True)

args = SimpleNamespace(**{**lora.CONFIG_DEFAULTS, **json.loads(sys.argv[1])})
model, tokenizer = load(args.model)
train, valid, _ = load_dataset(args, tokenizer)
lora.train_model(args, model, train, valid, Rates())
"""


def mlx_lm(args, folder):
    settings = {
        "model": str(args.model),
        "train": True,
        "data": str(folder),
        "iters": args.iters,
        "batch_size": 1,
        "max_seq_length": args.seq,
        "num_layers": -1,
        "val_batches": 1,
        "steps_per_eval": 10**6,
        "steps_per_report": 1,
        "save_every": 10**6,
        "adapter_path": str(folder / "theirs"),
        "lora_parameters": {"rank": args.rank, "scale": 2.0, "dropout": 0.0},
        "grad_checkpoint": args.grad_checkpoint,
    }
    out, peak = run([sys.executable, "-c", MLX_LM, json.dumps(settings)])
    return [float(rate) for rate in re.findall(r"^rate ([0-9.e+-]+)", out, re.M)], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optiq", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--iters", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--grad-checkpoint", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="of optiq; 0 = all cores")
    parser.add_argument("--only", choices=("ours",))
    args = parser.parse_args()
    weights = sum(file.stat().st_size for file in args.model.glob("model*.safetensors"))
    print(f"{args.model.name}: {weights / 1e6:.0f} MB of weights, {args.seq} tokens a step, {args.iters} steps")
    trainers = {"optiq": ours} if args.only else {"optiq": ours, "mlx-lm": mlx_lm}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_data(folder, args.seq)
        for name, trainer in trainers.items():
            rates, peak = trainer(args, folder)
            rss = f"{peak / 1e6:.0f} MB" if peak else "less than the one before"
            print(f"{name:7} {statistics.median(rates):9.1f} tokens/s ({min(rates):.1f} to {max(rates):.1f}), peak RSS {rss}",
                  flush=True)  # fmt: skip


main()
