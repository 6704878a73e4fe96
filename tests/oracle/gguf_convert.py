"""A GGUF model, run directly and converted: SmolLM2, widths by position.

The file itself answers a question; its conversion loads in stock mlx-lm, which
computes the same logits from it and the same prompt.
"""

from pathlib import Path

from _gguf_convert import SMOLLM, check_logits, check_stock_load, complete, convert, require
from _support import optiq, scratch

QUESTION = "What is the capital of France?"


def check_direct():
    answer = complete(SMOLLM, QUESTION, "--max-tokens", "16")
    assert "Paris" in answer["text"], answer
    # The file's codes run as they are; spread to float32 they would be 538 MB.
    assert answer["peak_rss_bytes"] < 400e6, answer
    out, _ = optiq("inspect", SMOLLM)
    assert "GGUF file" in out and "98.4 MB" in out, out
    print("direct:", answer["text"])


def check_converted(folder):
    out = folder / "converted"
    convert(SMOLLM, out, folder, "--method", "static", "--target-bpw", "6")
    check_stock_load(out)
    _, tokenizer = check_logits(out, folder)
    messages = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert complete(out, QUESTION, "--max-tokens", "1")["prompt_tokens"] == len(ids)
    assert tokenizer.eos_token == "<|im_end|>"
    assert complete(out, QUESTION, "--max-tokens", "1")["tokens"] == \
        complete(out, tokenizer.decode(ids), "--raw", "--max-tokens", "1")["tokens"]


def main():
    require(SMOLLM)
    check_direct()
    with scratch() as folder:
        check_converted(Path(folder))


main()
