"""What a hostile model shows on a terminal: names, types and messages of its
files come out escaped, on stdout and stderr; paths that are not UTF-8 are JSON."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, scratch

HOSTILE = "\x1b[2J\x1b]0;owned\x07\n\r\u009b31m\u202efake\x7f\u2028"
SHOWN = "\\x1b[2J\\x1b]0;owned\\x07\\n\\r\\u009b31m\\u202efake\\x7f\\u2028"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def on_terminal(*command, stdin=None):
    """Exit status and all that a terminal got, without the \\r that it adds."""
    master, slave = pty.openpty()
    child = subprocess.Popen([BIN, *map(str, command)], stdin=stdin, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # how Linux tells the end
            break
        if not piece:
            break
        text += piece
    os.close(master)
    return child.wait(timeout=60), text.decode().replace("\r\n", "\n")


def expect_shown(code, text, wanted_code):
    assert code == wanted_code, (code, text)
    raw = RAW.search(text)
    assert raw is None, (raw, text)
    assert SHOWN in text, text


def write_safetensors(path, tensors, metadata=None):
    header, offset = ({"__metadata__": metadata} if metadata else {}), 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape),
                        "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text +
                     b"".join(values.tobytes() for values in tensors.values()))


def model_of(folder, model_type, tensors):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def names_are_escaped(tmp):
    values = np.ones((4, 64), np.float32)
    model = model_of(tmp / "model", HOSTILE, {f"model.layers.0.{HOSTILE}.weight": values,
                                              f"{HOSTILE}.weight": values})
    expect_shown(*on_terminal("inspect", model), 4)  # an unknown type
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    expect_shown(*on_terminal("inspect", model), 0)  # names of tensors
    (model / "config.json").write_bytes(b'{"model_type": \x1b\xe9')
    code, text = on_terminal("inspect", model)
    assert code == 5 and not RAW.search(text), (code, text)
    shutil.copytree(MODEL, tmp / HOSTILE)
    expect_shown(*on_terminal("inspect", tmp / HOSTILE), 0)
    expect_shown(*on_terminal("inspect", tmp / HOSTILE / "absent"), 3)
    expect_shown(*on_terminal("convert", tmp / HOSTILE, "-o", tmp / f"out{HOSTILE}", "--method", "uniform",
                              "--bits", "4", "--progress", "plain"), 0)


def output_is_raw_but_on_a_terminal(tmp):
    """A path for the next program comes as it is."""
    plain = subprocess.run([BIN, "inspect", "--json", tmp / HOSTILE], capture_output=True, check=True).stdout
    assert json.loads(plain)["name"] == HOSTILE, plain


def paths_need_not_be_utf8(tmp):
    folder = os.fsencode(tmp) + b"/mod\xe9l"
    shutil.copytree(os.fsencode(MODEL), folder)
    wanted = "mod\\xe9l"
    for command in (["generate", folder, "--raw", "-p", "a", "--temp", "0", "--max-tokens", "2", "--json"],
                    ["inspect", folder, "--json"]):
        done = subprocess.run([BIN, *command], capture_output=True, check=True)
        assert wanted in json.dumps(json.loads(done.stdout), ensure_ascii=False).replace("\\\\", "\\"), done.stdout
    files = [tmp / "convert.json", tmp / "eval.json", tmp / "bench.json"]
    (tmp / "data.txt").write_text("Anna has 24 apples. Ben gives Anna 18 apples. " * 20)
    for command in (["convert", folder, "-o", os.fsencode(tmp) + b"/out\xe9", "--method", "uniform", "--bits", "4",
                     "--json", files[0]],
                    ["eval", folder, "--task", "ppl", "--data", tmp / "data.txt", "--limit", "1", "--json", files[1]],
                    ["bench", folder, "--prompt", "8", "--gen", "2", "--repeats", "1", "--json", files[2]]):
        subprocess.run([BIN, *command], capture_output=True, check=True)
    for file in files:
        assert "\\\\xe9" in file.read_text(), file
        json.loads(file.read_text())
    json.loads((Path(os.fsdecode(os.fsencode(tmp) + b"/out\xe9")) / "optiq" / "metadata.json").read_text())


def standard_input_has_a_limit():
    done = subprocess.run([BIN, "generate", str(MODEL), "--raw"], input=b"a" * ((16 << 20) + 1), capture_output=True)
    assert done.returncode == 2 and b"stdin: found more than 16777216 bytes" in done.stderr, done


def too_many_threads_end_in_a_sentence():
    """At the limit on memory, as at that on processes, which root does not meet."""
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 3000000; exec "$0" "$@"', BIN, "generate", str(MODEL), "--raw", "-p", "a",
         "--max-tokens", "1", "--threads", "1024"], capture_output=True, text=True)
    assert done.returncode == 7 and done.stderr.startswith("optiq: [ThreadPool] cannot start"), done


def main():
    with scratch() as folder:
        tmp = Path(folder)
        names_are_escaped(tmp)
        output_is_raw_but_on_a_terminal(tmp)
        paths_need_not_be_utf8(tmp)
    standard_input_has_a_limit()
    too_many_threads_end_in_a_sentence()


main()
