"""The commands of the Python original's documentation, word for word, with what
each must do. The models are served by the mock hub under the original's names."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _mock_hub import MockHub, model_files
from _support import BIN, MODEL, SHARED, optiq

DOCUMENT = SHARED / "reference" / "seed-optiq-experiments.txt"
SOURCE = "Qwen/Qwen3.5-9B"

CONVERT = "optiq convert Qwen/Qwen3.5-9B --target-bpw 4.5 --candidate-bits 4,8"
QUANTIZED = "mlx-community/Qwen3.5-9B-OptiQ-4bit"
KV_CACHE = (f"optiq kv-cache {QUANTIZED} --target-bits 4.5 --candidate-bits 4,8 "
            "-o optiq_output/kv_cache/qwen35_9b")
COMMANDS = (CONVERT, KV_CACHE)


def require_word_for_word():
    """Where the original's text is at hand, the commands are in it."""
    if DOCUMENT.exists():
        words = " ".join(DOCUMENT.read_text().replace("\\", " ").split())
        for command in COMMANDS:
            assert command in words, command


def run_in(folder, command, env, *more):
    """Runs a command of the document in a folder; `more` only to save time."""
    words = shlex.split(command)
    assert words[0] == "optiq"
    done = subprocess.run([BIN, *words[1:], *map(str, more)], cwd=folder, capture_output=True,
                          text=True, env={**os.environ, **env}, timeout=1500)
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def run_all(tmp, *convert_more):
    require_word_for_word()
    with MockHub({name: model_files(MODEL) for name in (SOURCE, QUANTIZED)}) as hub:
        env = {"HF_HOME": str(tmp / "home"), "HF_ENDPOINT": hub.url, "HF_TOKEN": "",
               "HF_HUB_CACHE": "", "HF_HUB_OFFLINE": "", "OPTIQ_CACHE_DIR": str(tmp / "cache")}
        convert(tmp, env, *convert_more)
        kv_cache(tmp, env)


def convert(tmp, env, *more):
    text = run_in(tmp, CONVERT, env, *more)
    width = float(re.search(r"code width +([0-9.]+)", text)[1])
    assert 4.0 <= width <= 4.5, text
    # Where the original puts it, readable by name of the folder.
    out = tmp / "optiq_output" / "Qwen3.5-9B"
    head, _ = optiq("inspect", out, env=env)
    assert f"made from    {SOURCE} by method optiq" in head, head
    assert SOURCE in (out / "README.md").read_text()
    return out


def kv_cache(tmp, env):
    text = run_in(tmp, KV_CACHE, env)
    config = json.loads((tmp / "optiq_output/kv_cache/qwen35_9b/kv_config.json").read_text())
    # The attention layers of tiny-qwen3.5; one at 8 bits would be a mean of 6.
    assert config == [{"layer_idx": i, "bits": 4, "group_size": 64} for i in (3, 7)], config
    assert re.search(r"true width +4\.5000", text), text
