"""convert --max-ram keeps the process within its limit, and its bytes are those
of a conversion without one: SmolLM2 from its GGUF (270 MB in bfloat16) within
400 MB, and a Llama-shaped model of random weights that is four times as large as
its limit."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _gguf import GGUF
from _small_llama import write_model
from _support import BIN, MODEL, assert_same_bytes, scratch

MB = 1_000_000
SMOLLM = GGUF / "SmolLM2-135M-Instruct.Q4_1.gguf"
LARGE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 70, "num_attention_heads": 16,
         "num_key_value_heads": 4, "head_dim": 64}  # fmt: skip
LIMIT = 400 * MB


def convert(source, output, cache, *more):
    """Returns the process's peak resident set in bytes."""
    command = [BIN, "convert", source, "-o", output, "--protect", "off", "--target-file-bpw", "5",
               "--progress", "none", *more]  # fmt: skip
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL,
                             env={**os.environ, "OPTIQ_CACHE_DIR": str(cache)})  # fmt: skip
    _, status, usage = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return usage.ru_maxrss * 1024


def check_limit(what, rss, bytes_of_model):
    print(f"{what}: {bytes_of_model / MB:.0f} MB in bfloat16, {rss / MB:.0f} MB resident at most")
    assert rss <= LIMIT, what


def check_smollm(folder):
    limited, free = folder / "limited", folder / "free"
    more = ("--n-calibration", "4")
    rss = convert(SMOLLM, limited, folder / "cache 1", *more, "--max-ram", "400MB")
    check_limit("SmolLM2", rss, 270 * MB)
    rss = convert(SMOLLM, free, folder / "cache 2", *more)
    print(f"SmolLM2 without a limit: {rss / MB:.0f} MB")
    assert rss > LIMIT, "the limit changed nothing"
    assert_same_bytes(limited, free)


def check_large(folder):
    source = folder / "large"
    # In a process of its own: a child's peak starts at its parent's size.
    subprocess.run([sys.executable, __file__, source], check=True)
    size = (source / "model.safetensors").stat().st_size
    assert size >= 4 * LIMIT * 0.98, size
    rss = convert(source, folder / "quantized", folder / "cache 3", "--n-calibration", "2",
                  "--calibration", "mix", "--sensitivity", "fast", "--max-ram", "400MB")  # fmt: skip
    check_limit("four times the limit", rss, size)


def main():
    with scratch() as folder:
        check_smollm(Path(folder))
        check_large(Path(folder))


if len(sys.argv) == 2:
    write_model(Path(sys.argv[1]), MODEL, LARGE)
else:
    main()
