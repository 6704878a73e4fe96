"""Trains tiny-qwen3.5 and writes it with its golden logits and question set.

Needs PyTorch with CUDA, transformers >= 5.23 and tokenizers, which
scripts/setup does not install. The checkpoint in models/tiny-qwen3.5 came from
an earlier form of this script (one GPU, 15 minutes). This form has run for 90
seconds on small texts, to see that the loss falls and that every tensor has the
name, shape and dtype of that checkpoint; it has not trained the full model.
"""

import argparse
import pathlib
import random
import time

import torch
from torch import nn

import checkpoint
import corpora
import network
import tasks

PEAK_RATE = 2e-3
WARM_UP_STEPS = 200
MTP_WEIGHT = 0.3
# Rows per step of each kind; every eighth step is long recall alone.
MIX = {"problem": 26, "recall": 20, "prose": 14, "school": 4}
LONG_EVERY = 8
LONG_ROWS = 16
QUESTION_SEED = 31337
QUESTIONS = 500


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wiki", required=True, help="prose, one text file (WikiText-2 validation was used)")
    parser.add_argument("--prose", required=True, help="more prose (the King James Bible was used)")
    parser.add_argument("--school", required=True, help="JSON lines of question and answer (GSM8K train was used)")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=14, help="that make training rows")
    return parser.parse_args()


def make_optimizer(modules):
    parameters = [p for module in modules for p in module.parameters()]
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def learning_rate(step, progress):
    """Warm-up, a plateau, then linear to zero over the second half of the time."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm * min(1.0, (1 - progress) / 0.5 + 1e-3)


def draw(rows, count):
    return rows[torch.randint(0, len(rows), (count,), device=rows.device)]


def next_batch(pools, step):
    if step % LONG_EVERY == LONG_EVERY - 1:
        return draw(pools["long_recall"], LONG_ROWS)
    return torch.cat([draw(pools[kind], count) for kind, count in MIX.items()])


def train(model, mtp, pools, minutes):
    optimizer = make_optimizer([model, mtp])
    parameters = [*model.parameters(), *mtp.parameters()]
    start, step = time.time(), 0
    while (progress := (time.time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            main, second = network.losses(model, mtp, next_batch(pools, step))
        (main + MTP_WEIGHT * second).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 200 == 0:
            print(f"step {step}  {progress:.0%}  loss {main.item():.3f}  mtp {second.item():.3f}", flush=True)
    model.eval()


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    rng = random.Random(arguments.seed)
    texts = corpora.read_texts(arguments.wiki, arguments.prose, arguments.school)
    tokenizer = corpora.train_tokenizer(texts, rng)
    # The processes that make rows fork before CUDA starts.
    pools = corpora.make_pools(corpora.RowMaker(texts, tokenizer, rng), arguments.seed, arguments.processes)
    pools = {kind: rows.cuda() for kind, rows in pools.items()}
    config = network.make_config(tokenizer)
    model, mtp = network.make_model(config, "cuda")
    train(model, mtp, pools, arguments.minutes)
    fast_tokenizer = corpora.as_transformers_tokenizer(tokenizer)
    checkpoint.write_checkpoint(arguments.out, model, mtp, config, tokenizer, fast_tokenizer, "cuda")
    questions = random.Random(QUESTION_SEED)
    tasks.write_questions(arguments.out / "eval_arithmetic.jsonl",
                          [tasks.problem(questions) for _ in range(QUESTIONS)])


if __name__ == "__main__":
    main()
