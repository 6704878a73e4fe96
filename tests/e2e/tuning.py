"""optiq convert --tune-steps as a user runs it: on tiny-qwen3.5 it helps on text that the calibration has
not seen; on a model of one layer nothing but the flag decides the bytes, and a killed conversion
run again is the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import BIN, MODEL, assert_same_bytes, optiq, scratch

UNIFORM = ["--method", "uniform", "--bits", "3"]
TUNED = [*UNIFORM, "--tune-steps", "6", "--n-calibration", "6"]
LONG = [*UNIFORM, "--tune-steps", "40", "--n-calibration", "6"]


def convert(source, out, *flags):
    text, _ = optiq("convert", source, "-o", out, "--progress", "none", "--json", f"{out}.json", *flags)
    return text, json.loads(Path(f"{out}.json").read_text())


def kl(model, tmp):
    optiq("eval", model, "--task", "kl", "--reference", MODEL, "--data",
          MODEL / "eval_arithmetic.jsonl", "--limit", "16", "--json", tmp / "kl.json")
    return json.loads((tmp / "kl.json").read_text())["mean_kl"]


def tuning_helps(tmp):
    convert(MODEL, tmp / "plain", *UNIFORM)
    text, result = convert(MODEL, tmp / "tuned", *TUNED)
    found = result["tuning"]
    assert 0 < found["best_step"] <= 6 and found["kl_after"] < found["kl_before"], found
    assert result["tuned_steps"] == found["best_step"], result
    assert f"(step {found['best_step']} of 6)" in text, text
    assert result["calibration"] == "both" and result["calibration_tokens"] > 5 * 512, result
    before, after = kl(tmp / "plain", tmp), kl(tmp / "tuned", tmp)
    print(f"KL on questions: {before:.4f}, tuned {after:.4f}")
    assert after < before, (before, after)
    a, b = ((tmp / name / "model.safetensors").stat().st_size for name in ("plain", "tuned"))
    assert a == b, (a, b)


def threads_change_no_byte(small, tmp):
    convert(small, tmp / "two", *LONG, "--threads", "2")
    convert(small, tmp / "one", *LONG, "--threads", "1")
    assert_same_bytes(tmp / "two", tmp / "one")


def killed_and_run_again(small, tmp, seconds):
    moments = random.Random(4)
    for i in range(3):
        out = tmp / f"killed{i}"
        process = subprocess.Popen([BIN, "convert", small, "-o", out, *LONG],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 0.7) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        convert(small, out, *LONG)
        assert_same_bytes(tmp / "two", out)


def a_calibration_of_both(small, tmp):
    _, result = convert(small, tmp / "both", *UNIFORM, "--tune-steps", "1", "--n-calibration", "4",
                        "--calibration", "both")
    assert result["calibration"] == "both", result
    _, dry = convert(small, tmp / "dry", *TUNED, "--dry-run")
    assert dry["estimated_seconds"] > 0 and "tuning" not in dry and not (tmp / "dry").exists(), dry


def what_is_refused(tmp):
    _, error = optiq("convert", MODEL, "-o", tmp / "x", "--tune-steps", "-1", expect=2)
    assert "--tune-steps" in error, error
    _, error = optiq("convert", MODEL, "-o", tmp / "x", *UNIFORM, "--tune-steps", "5",
                     "--n-calibration", "1", expect=2)
    assert "expected two" in error and not (tmp / "x").exists(), error
    _, error = optiq("convert", MODEL, "-o", tmp / "x", *UNIFORM, "--seed", "5", expect=2)
    assert "--tune-steps" in error, error


def main():
    with scratch() as folder:
        tmp = Path(folder)
        os.environ["OPTIQ_CACHE_DIR"] = str(tmp / "cache")
        tuning_helps(tmp)
        small = tmp / "small"
        write_small_model(small)
        start = time.monotonic()
        threads_change_no_byte(small, tmp)
        killed_and_run_again(small, tmp, (time.monotonic() - start) / 3)
        a_calibration_of_both(small, tmp)
        what_is_refused(tmp)
    print("ok")


if __name__ == "__main__":
    main()
