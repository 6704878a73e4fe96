"""What benchmarks of conversions share: commands of optiq, and text that no calibration has seen."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "models/tiny-qwen3.5"
QUESTIONS = TINY / "eval_arithmetic.jsonl"


def run_optiq(program, *words):
    command = [str(w) for w in (program, *words, "--progress", "none")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def unseen_texts(model, shared, rows):
    """By name, what eval --task kl takes for --data: of tiny-qwen3.5 questions, of any model `rows`
    rows of WikiText-2 where there is ../shared."""
    texts = {}
    if model.resolve() == TINY:
        texts["questions"] = [QUESTIONS, "--limit", "128"]
    wiki = shared / "data" / "wikitext2-valid.txt"
    if wiki.exists():
        texts["WikiText"] = [wiki, "--limit", rows, "--seq-len", "512"]
    return texts
