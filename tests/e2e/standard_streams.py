"""A full, closed or deserted stdout ends every command with a sentence and its
exit code, or quietly; what happens to stderr changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import BIN, scratch

IO, EXHAUSTED, READER_GONE = 6, 7, 141
SHORT = ["--n-samples", "1", "--seq-len", "16"]


def commands(model, tmp):
    """Every command that prints something without a network."""
    text = tmp / "text.txt"
    text.write_text("To be, or not to be, that is the question. " * 4)
    yield ["--help"]
    yield ["--version"]
    yield ["doctor"]
    yield ["doctor", "--json"]
    yield ["list"]
    yield ["list", "--json"]
    yield ["inspect", model]
    yield ["inspect", model, "--json"]
    yield ["report", model, "-o", tmp / "page.html"]
    yield ["generate", model, "--raw", "-p", "To be", "--max-tokens", "4", "--temp", "0"]
    yield ["generate", model, "--raw", "-p", "To be", "--max-tokens", "4", "--json"]
    yield ["eval", model, "--task", "ppl", "--data", text, "--seq-len", "32"]
    yield ["bench", model, "--prompt", "8", "--gen", "2", "--repeats", "1"]
    yield ["convert", model, "-o", tmp / "out", "--overwrite", "--method", "uniform"]
    yield ["kv-cache", model, "-o", tmp / "kv", "--overwrite", *SHORT]


REDIRECTS = (
    (">/dev/full", EXHAUSTED, "No space left"),
    (">&-", IO, "Bad file descriptor"),
    ("2>/dev/full", 0, ""),
    ("2>&-", 0, ""),
    ("<&- >&- 2>&-", IO, ""),
)


def start(arguments, env, redirect="", **streams):
    """Runs `optiq ARGUMENTS REDIRECT` in a shell."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", BIN, *map(str, arguments)]
    return subprocess.run(command, text=True, env=env, timeout=120, **streams)


def ends_quietly_without_a_reader(arguments, env):
    reader, writer = os.pipe()
    os.close(reader)
    done = start(arguments, env, stdout=writer)
    os.close(writer)
    assert done.returncode == READER_GONE, (arguments, done)
    assert "optiq:" not in done.stderr, (arguments, done)


def main():
    with scratch() as folder:
        tmp = Path(folder)
        model = tmp / "model"
        write_small_model(model)
        env = {**os.environ, "OPTIQ_CACHE_DIR": str(tmp / "cache"), "HF_HUB_CACHE": str(tmp / "hub")}
        for arguments in commands(model, tmp):
            for redirect, code, words in REDIRECTS:
                done = start(arguments, env, redirect)
                assert done.returncode == code, (arguments, redirect, done)
                assert words in done.stderr, (arguments, redirect, done)
                assert not words or "optiq: [stdout]" in done.stderr, (arguments, done)
            ends_quietly_without_a_reader(arguments, env)
        # With stdout closed its number goes to no file that is written.
        page = (tmp / "page.html").read_text()
        assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")


main()
