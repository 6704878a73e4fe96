"""Writes models/tiny-qwen3.5/eval_recall.jsonl: 300 questions, 8 facts among 8
sentences of data/needle/filler.txt, which was written for this project.

make_recall_sets.py OUT.jsonl
"""

import pathlib
import random
import sys

TOOLS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS / "train_tiny_model"))
import tasks  # noqa: E402  (found through the path above)

SEED = 31338
ROWS = 300
FACTS = 8
SENTENCES = 8


def make_rows():
    rng = random.Random(SEED)
    prose = (TOOLS.parent / "data" / "needle" / "filler.txt").read_text(encoding="utf-8").splitlines()

    def filler(count):
        first = rng.randrange(0, len(prose) - count + 1)
        return prose[first:first + count]

    return [tasks.recall(rng, filler, FACTS, SENTENCES) for _ in range(ROWS)]


if __name__ == "__main__":
    tasks.write_questions(sys.argv[1], make_rows())
