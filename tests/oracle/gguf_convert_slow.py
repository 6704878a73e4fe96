"""Real GGUF models converted by measured sensitivities: SmolLM2 and Gemma 3.

With 2048 calibration tokens, in less than 30 minutes; stock mlx-lm loads both
and computes the same logits. Of Gemma 3 270M (a base model) the greedy
continuation of this file is not Paris, by llama.cpp neither, so what is asked
of it is mlx-lm's continuation.
"""

import time
from pathlib import Path

from mlx_lm import stream_generate

from _gguf_convert import GEMMA, SMOLLM, check_logits, check_stock_load, complete, convert, require
from _support import scratch

LIMIT_SECONDS = 30 * 60
PROMPT = "The capital of France is"


def check(source, folder):
    out = folder / "converted"
    start = time.monotonic()
    convert(source, out, folder, "--target-bpw", "7", "--n-calibration", "4")
    seconds = time.monotonic() - start
    print(f"{source.name}: converted in {seconds:.0f} s", flush=True)
    assert seconds < LIMIT_SECONDS
    check_stock_load(out)
    model, tokenizer = check_logits(out, folder)
    expected = [r.token for r in stream_generate(model, tokenizer, tokenizer.encode(PROMPT), max_tokens=16)]
    assert complete(out, PROMPT, "--raw", "--max-tokens", "16")["tokens"] == expected
    return out


def main():
    for source in (SMOLLM, GEMMA):
        require(source)
        with scratch() as folder:
            out = check(source, Path(folder))
            if source == SMOLLM:
                answer = complete(out, "What is the capital of France?", "--max-tokens", "16")["text"]
                assert "Paris" in answer, answer


main()
