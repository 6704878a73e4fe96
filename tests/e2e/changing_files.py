"""A model whose file becomes shorter while optiq uses it: a sentence that names
the file, nothing that was computed from the missing bytes, no staging folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, scratch

SHARD = "model-00001-of-00002.safetensors"
DATA = "Anna has 24 apples. Ben gives Anna 18 apples. How many are there now? " * 200


def copy_of_model(folder):
    shutil.copytree(MODEL, folder, copy_function=shutil.copy)
    return folder


def shrink_during(command, is_under_way, env=None):
    """Runs a command; once `is_under_way(child)` returns, the first shard loses
    what lies behind its first page. Returns what came of it."""
    child = subprocess.Popen([BIN, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, **(env or {})})
    try:
        begun = is_under_way(child)
        child.send_signal(signal.SIGSTOP)
        os.truncate(Path(command[1]) / SHARD, 4096)
        child.send_signal(signal.SIGCONT)
        out, error = child.communicate(timeout=120)
    finally:
        child.kill()
    error = error.decode()  # from the mapping, or from a small tensor that is read
    last = error.strip().splitlines()[-1]
    assert child.returncode == 6, (child.returncode, error)
    assert last.startswith("optiq: ") and SHARD in last and "Is somebody writing it?" in last, error
    return begun, out


def stage(name):
    """Under way once progress tells of this stage."""
    def wait(child):
        for line in child.stderr:
            event = json.loads(line)
            if event["stage"] == name and event["done"] > 0:
                return event
        raise AssertionError(f"no event of {name}")
    return wait


def generate(tmp):
    model = copy_of_model(tmp / "generate")
    arguments = ["--raw", "-p", "In the beginning", "--temp", "1", "--top-k", "0", "--top-p", "1",
                 "--seed", "1", "--max-tokens"]
    right = subprocess.run([BIN, "generate", str(MODEL), *arguments, "100"], capture_output=True, check=True).stdout
    begun, rest = shrink_during(["generate", model, *arguments, "4000"], lambda child: child.stdout.read(1))
    text = (begun + rest).rstrip(b"\n")
    n = min(len(text), len(right.rstrip(b"\n")))
    assert n > 0 and text[:n] == right[:n], "a token came from missing bytes"


def convert(tmp):
    model = copy_of_model(tmp / "convert")
    out = tmp / "results" / "out"
    out.parent.mkdir()
    shrink_during(["convert", model, "-o", out, "--candidate-bits", "4,8", "--n-calibration", "2",
                   "--progress", "json"],
                  stage("sensitivity"), env={"OPTIQ_CACHE_DIR": str(tmp / "cache")})
    assert os.listdir(out.parent) == [], os.listdir(out.parent)


def evaluate(tmp):
    model = copy_of_model(tmp / "eval")
    (tmp / "data.txt").write_text(DATA)
    _, out = shrink_during(["eval", model, "--task", "ppl", "--data", tmp / "data.txt", "--seq-len", "64",
                            "--progress", "json", "--json", tmp / "result.json"], stage("ppl"))
    assert out == b"" and not (tmp / "result.json").exists(), out


def main():
    with scratch() as folder:
        for check in (generate, convert, evaluate):
            check(Path(folder))


main()
