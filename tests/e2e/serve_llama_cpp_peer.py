"""benchmarks/serve_peers.py in three rounds: `optiq serve` beside llama.cpp's server."""

import json
import os
import statistics
import sys
from pathlib import Path

SOURCE = Path(os.environ["OPTIQ_SOURCE_DIR"])
sys.path[:0] = [str(SOURCE / "tests" / "oracle"), str(SOURCE / "benchmarks")]
from _support import BIN, run, scratch, skip
from peers import LLAMA_CPP, MODEL

if not (LLAMA_CPP / "llama-server").exists() or not MODEL.exists():
    skip("llama.cpp and a model are needed: run scripts/setup --developer --peers")

with scratch() as folder:
    figures_path = Path(folder) / "figures.json"
    table, _ = run(
        sys.executable, SOURCE / "benchmarks" / "serve_peers.py", "--optiq", BIN, "--out", folder, "--rounds", 3,
        "--json", figures_path,
    )  # fmt: skip
    figures = json.loads(figures_path.read_text())
print(table)


def ratio(case, other=None):
    """Median over rounds of ours by theirs; or of ours in two cases."""
    ours = figures["load"][case]["OptIQ"]
    others = figures["load"][other]["OptIQ"] if other else figures["load"][case]["llama.cpp"]
    return statistics.median(a / b for a, b in zip(ours, others))


missed = []
for streams in ("1 stream", "8 streams", "16 streams"):
    if ratio(f"{streams}, tokens/s") < 1.3:
        missed.append(f"{streams}: less than 1.3 times llama.cpp's tokens/s")
if ratio("first token beside a prefill, ms") > 1:
    missed.append("a short prompt waits longer beside a prefill than in llama.cpp")
if ratio("8 streams, tokens/s", "1 stream, tokens/s") < 2.5:
    missed.append("8 streams: less than 2.5 times the tokens/s of one")
for name, rounds in figures["turns"].items():
    if name.endswith("OptIQ") and statistics.median(r["gain"] for r in rounds) < 20:
        missed.append(f"{name}: a second turn's first token comes less than 20 times as soon")
assert not missed, missed
