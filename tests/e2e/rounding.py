"""optiq convert --rounding as a user runs it, on tiny-qwen3.5: what each rounding buys on text that
the calibration has not seen, and that nothing but the flag decides the bytes."""

import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, assert_same_bytes, optiq, scratch

UNIFORM = ["--method", "uniform", "--bits", "3"]
MEASURED = ["--target-file-bpw", "4.5", "--candidate-bits", "3,8", "--protect", "off"]
CALIBRATED = ["--n-calibration", "6"]


def convert(out, *flags, env):
    optiq("convert", MODEL, "-o", out, "--progress", "none", *flags, env=env)
    return json.loads((out / "optiq" / "metadata.json").read_text())


def kl(model, tmp):
    optiq("eval", model, "--task", "kl", "--reference", MODEL, "--data",
          MODEL / "eval_arithmetic.jsonl", "--limit", "16", "--json", tmp / "kl.json")
    return json.loads((tmp / "kl.json").read_text())["mean_kl"]


def each_rounding_buys_something(tmp, env):
    """On questions, from a calibration on prose, code and chats, 3,072 tokens: of 2,048 the error
    feedback of 768 inputs is no good yet (.0237 against the search's .0118)."""
    found = []
    for rounding in ("nearest", "search", "gptq"):
        flags = [] if rounding == "nearest" else CALIBRATED
        metadata = convert(tmp / rounding, *UNIFORM, "--rounding", rounding, *flags, env=env)
        assert metadata["rounding"] == rounding
        assert (metadata["calibration"] == "both") == (rounding != "nearest"), metadata
        found.append(kl(tmp / rounding, tmp))
    print("KL of nearest, search, gptq:", *(f"{value:.4f}" for value in found))
    # Of 16 rows' noise a third; which of the two is better they cannot tell.
    assert max(found[1:]) < 0.6 * found[0], found
    sizes = {(tmp / r / "model.safetensors").stat().st_size for r in ("nearest", "gptq")}
    assert len(sizes) == 1, sizes


def nearest_is_the_default(tmp, env):
    convert(tmp / "plain", *UNIFORM, env=env)
    assert_same_bytes(tmp / "plain", tmp / "nearest")


def threads_change_no_byte(tmp, env):
    for rounding in ("search", "gptq"):
        convert(tmp / f"{rounding}-1", *UNIFORM, "--rounding", rounding, *CALIBRATED,
                "--threads", "1", env=env)
        assert_same_bytes(tmp / f"{rounding}-1", tmp / rounding)


def a_plan_takes_any_rounding(tmp, env):
    convert(tmp / "u", *UNIFORM, "--save-plan", tmp / "plan.json", env=env)
    convert(tmp / "planned", "--plan", tmp / "plan.json", "--rounding", "gptq", *CALIBRATED,
            env=env)
    assert filecmp.cmp(tmp / "planned" / "model.safetensors",
                       tmp / "gptq" / "model.safetensors", shallow=False)


def measuring_asks_the_same_rounder(tmp):
    """A measurement's key holds the rounding; killed and resumed, the bytes are the same."""
    calibrated = ["--n-calibration", "1"]
    flags = [*MEASURED, *calibrated, "--rounding", "gptq"]
    start = time.monotonic()
    convert(tmp / "measured", *flags, env={"OPTIQ_CACHE_DIR": str(tmp / "c0")})
    seconds = time.monotonic() - start
    journals = list((tmp / "c0" / "sensitivity").glob("*.jsonl"))
    convert(tmp / "other", *MEASURED, *calibrated, env={"OPTIQ_CACHE_DIR": str(tmp / "c0")})
    assert len(list((tmp / "c0" / "sensitivity").glob("*.jsonl"))) == 2 * len(journals) > 0
    moments = random.Random(3)
    for i in range(2):
        env = {**os.environ, "OPTIQ_CACHE_DIR": str(tmp / f"c{i + 1}")}
        out = tmp / f"killed{i}"
        process = subprocess.Popen([BIN, "convert", MODEL, "-o", out, *flags], env=env,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 0.9) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            shutil.rmtree(out)
        convert(out, *flags, env={"OPTIQ_CACHE_DIR": str(tmp / f"c{i + 1}")})
        assert_same_bytes(tmp / "measured", out)
        left = [p.name for p in (tmp / f"c{i + 1}" / "sensitivity").iterdir()]
        assert all(name.endswith(".jsonl") for name in left), left


def an_unknown_rounding_is_refused(tmp, env):
    _, error = optiq("convert", MODEL, "-o", tmp / "x", "--rounding", "up", expect=2, env=env)
    assert "nearest, search or gptq" in error, error
    _, error = optiq("convert", MODEL, "-o", tmp / "x", *UNIFORM, "--rounding", "nearest",
                     *CALIBRATED, expect=2, env=env)
    assert "--n-calibration" in error and "--rounding search or gptq or --tune-steps" in error, error


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        each_rounding_buys_something(tmp, env)
        nearest_is_the_default(tmp, env)
        threads_change_no_byte(tmp, env)
        a_plan_takes_any_rounding(tmp, env)
        an_unknown_rounding_is_refused(tmp, env)
        measuring_asks_the_same_rounder(tmp)
    print("ok")


if __name__ == "__main__":
    main()
