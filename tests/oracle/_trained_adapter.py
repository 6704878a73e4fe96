"""An adapter that `optiq lora train` made, with ranks that differ: of a 4/8-bit
version of the test model, whose names the full-precision base shares."""

import sys
from pathlib import Path

from _support import MODEL, optiq, run

MAKE_TASK = Path(__file__).parent.parent.parent / "tools" / "make_training_task.py"


def train_adapter(folder):
    """Few steps, large ones: it has to do something, not something useful."""
    quantized = folder / "four-eight"
    optiq("convert", MODEL, "--method", "static", "--target-bpw", "5", "--candidate-bits", "4,8", "-o", quantized,
          "--progress", "none")  # fmt: skip
    data = folder / "task"
    run(sys.executable, MAKE_TASK, "zorp", data, "--train", 8, "--valid", 2, "--test", 1)
    adapter = folder / "trained"
    optiq("lora", "train", quantized, "--data", data, "-o", adapter, "--iters", 6, "--batch-size", 2, "--lr", "5e-3",
          "--rank", 2, "--rslora", "--progress", "none")  # fmt: skip
    return adapter
