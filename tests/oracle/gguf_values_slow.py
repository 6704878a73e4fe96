"""The values of every tensor of the real models, bit for bit those of PyPI's gguf."""

from pathlib import Path

from _gguf import GGUF, compare
from _support import scratch, skip

models = sorted(GGUF.glob("*.gguf"))
if not models:
    skip("no real models in OPTIQ_GGUF_DIR: run ./scripts/setup --developer")
for model in models:
    with scratch() as folder:
        print(f"{model.name}: {compare(model, Path(folder))} tensors")
