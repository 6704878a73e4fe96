"""The committed question sets are what the scripts in tools/ make."""

import os
import pathlib
import random
import sys
import tempfile

SOURCE = pathlib.Path(os.environ["OPTIQ_SOURCE_DIR"])
MODEL = pathlib.Path(os.environ["OPTIQ_TEST_MODEL"])
sys.path[:0] = [str(SOURCE / "tools"), str(SOURCE / "tools" / "train_tiny_model")]
import make_recall_sets  # noqa: E402
import tasks  # noqa: E402

ARITHMETIC_SEED = 31337


def check(name, rows):
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, name)
        tasks.write_questions(made, rows)
        if made.read_bytes() != (MODEL / name).read_bytes():
            sys.exit(f"{name} is not what its script makes")
    print(f"{name}: {len(rows)} rows, byte-equal")


rng = random.Random(ARITHMETIC_SEED)
check("eval_arithmetic.jsonl", [tasks.problem(rng) for _ in range(500)])
check("eval_recall.jsonl", make_recall_sets.make_rows())
