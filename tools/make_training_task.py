"""Makes a task that tiny-qwen3.5 does not know and can learn: train.jsonl and
valid.jsonl to train on, test.jsonl for `optiq eval --task exact-match`.

    make_training_task.py TASK FOLDER [--train N] [--valid N] [--test N] [--seed N]

Tasks, each with a number for an answer that no other question of the folder has
been asked with:
  zorp      an operator that nobody has heard of: a zorp b is 2 a + b, in steps
  mirror    the digits of a number in reverse order

No question occurs twice, so what is tested was not trained on.
"""

import argparse
import json
import random
from pathlib import Path


def zorp(draw):
    a, b = draw.randint(3, 99), draw.randint(3, 99)
    return f"What is {a} zorp {b}?", [f"{a} * 2 = {2 * a}", f"{2 * a} + {b} = {2 * a + b}"], str(2 * a + b)


def mirror(draw):
    digits = []
    while digits == digits[::-1]:  # what reads the same either way shows nothing
        digits = [str(draw.randint(1, 9)) for _ in range(draw.randint(3, 4))]
    return f"Mirror {' '.join(digits)}.", [" ".join(reversed(digits))], "".join(reversed(digits))


TASKS = {"zorp": zorp, "mirror": mirror}


def make_rows(task, count, seed):
    draw = random.Random(f"{task} {seed}")
    rows = {}
    while len(rows) < count:
        question, steps, value = TASKS[task](draw)
        rows[question] = {"question": question, "answer": "\n".join([*steps, f"#### {value}"]), "value": value}
    return list(rows.values())


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def to_train_on(row):
    return {"prompt": row["question"], "completion": row["answer"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--valid", type=int, default=50)
    parser.add_argument("--test", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = make_rows(args.task, args.train + args.valid + args.test, args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    train, rest = rows[: args.train], rows[args.train :]
    write(args.folder / "train.jsonl", map(to_train_on, train))
    write(args.folder / "valid.jsonl", map(to_train_on, rest[: args.valid]))
    write(args.folder / "test.jsonl", rest[args.valid :])


main()
