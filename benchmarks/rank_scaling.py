#!/usr/bin/env python3
"""What ranks that follow the sensitivity are worth: by_bits, by_kl and constant
at a matched number of parameters, on two tasks, over seeds.

    rank_scaling.py OPTIQ MODEL [--seeds 1 2 3] [--rank 2] [--iters 70] [--json FILE]

MODEL is one that `optiq convert` measured (by_kl reads its sensitivity). A seed
makes the task, the order of examples and the begin of the adapter; all three
scalings get the same ones, so their differences are paired. Prints each run as
it ends, then a table: mean and standard deviation over seeds, and the mean of
the paired difference to constant with its standard error. FILE gets a line a
run; what it has of the same settings is not run again.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = ("zorp", "mirror")
SCALINGS = ("constant", "by_bits", "by_kl")
MAKE_TASK = Path(__file__).parent.parent / "tools" / "make_training_task.py"
FIGURES = ("accuracy", "valid_loss")


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def key_of(args, task, scaling, seed):
    """What a run follows from."""
    settings = {name: getattr(args, name) for name in ("rank", "iters", "batch_size", "lr", "test")}
    return {"task": task, "scaling": scaling, "seed": seed, **settings}


def measure(args, folder, task, scaling, seed):
    data = folder / f"{task}-{seed}"
    if not data.exists():
        run(sys.executable, MAKE_TASK, task, data, "--seed", seed, "--valid", 30, "--test", args.test)
    out = folder / f"{task}-{seed}-{scaling}"
    matched = [] if scaling == "constant" else ["--budget-match"]
    threads = ["--threads", args.threads]
    run(args.optiq, "lora", "train", args.model, *threads, "--data", data, "-o", out, "--rank-scaling", scaling, *matched,
        "--rank", args.rank, "--iters", args.iters, "--batch-size", args.batch_size, "--lr", args.lr, "--seed", seed,
        "--warmup", args.iters // 10, "--save-every", args.iters, "--progress", "none")  # fmt: skip
    info = json.loads(run(args.optiq, "lora", "info", out, "--json"))
    result = out.with_suffix(".json")
    run(args.optiq, "eval", args.model, *threads, "--task", "exact-match", "--data", data / "test.jsonl", "--adapter", out,
        "--max-tokens", 48, "--progress", "none", "--json", result)  # fmt: skip
    return {
        **key_of(args, task, scaling, seed),
        "parameters": info["parameters"],
        "accuracy": json.loads(result.read_text())["accuracy"],
        "valid_loss": info["training"]["valid_loss"],
    }


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def print_table(runs):
    print(f"{'task':8} {'ranks':9} {'parameters':>10}  " + "".join(f"{name:>20}{'to constant':>22}" for name in FIGURES))
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        constant = {run["seed"]: run for run in of_task if run["scaling"] == "constant"}
        for scaling in SCALINGS:
            rows = [run for run in of_task if run["scaling"] == scaling]
            line = f"{task:8} {scaling:9} {rows[0]['parameters']:>10}  "
            for name in FIGURES:
                values = [row[name] for row in rows]
                line += f"{statistics.mean(values):>11.4f} ± {spread(values):.4f}"
                if scaling == "constant":
                    line += f"{'':22}"
                else:
                    paired = [row[name] - constant[row["seed"]][name] for row in rows]
                    error = spread(paired) / len(paired) ** 0.5
                    line += f"{statistics.mean(paired):>+13.4f} ± {error:.4f}"
            print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optiq", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--iters", type=int, default=70)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", default="2e-3")
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="each run, one object a line")
    args = parser.parse_args()
    known = []
    if args.json and args.json.exists():
        known = [json.loads(line) for line in args.json.open()]
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, task, scaling in itertools.product(args.seeds, TASKS, SCALINGS):
            key = key_of(args, task, scaling, seed)
            done = [run for run in known if run.items() >= key.items()]
            runs.append(done[0] if done else measure(args, Path(folder), task, scaling, seed))
            if not done:
                print(json.dumps(runs[-1]), flush=True)
            if args.json and not done:
                with args.json.open("a") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
    print_table(runs)


main()
