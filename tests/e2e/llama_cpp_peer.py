"""benchmarks/peers.py in three rounds: OptIQ is not slower than llama.cpp."""

import os
import re
import sys
from pathlib import Path

SOURCE = Path(os.environ["OPTIQ_SOURCE_DIR"])
sys.path[:0] = [str(SOURCE / "tests" / "oracle"), str(SOURCE / "benchmarks")]
from _support import BIN, run, scratch, skip
from peers import LLAMA_CPP, MODEL

PAIR = re.compile(r"\| (OptIQ .* / llama\.cpp .*?) \| ([0-9.]+) .*? \| ([0-9.]+) ")

if not (LLAMA_CPP / "llama-bench").exists() or not MODEL.exists():
    skip("llama.cpp and a model are needed: run scripts/setup --developer --peers")

with scratch() as folder:
    table, _ = run(sys.executable, SOURCE / "benchmarks" / "peers.py", "--optiq", BIN, "--out", folder, "--rounds", 3)
print(table)
pairs = PAIR.findall(table)
assert len(pairs) == 4, "peers.py printed other pairs"
slower = [name for name, prefill, decode in pairs if min(float(prefill), float(decode)) < 1]
assert not slower, f"slower than llama.cpp: {slower}"
