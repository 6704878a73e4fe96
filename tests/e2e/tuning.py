"""optiq convert --tune-steps as a user runs it, on tiny-qwen3.5: it helps on text that the calibration
has not seen, nothing but the flag decides the bytes, and a killed conversion run again is the same."""

import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, optiq, scratch

UNIFORM = ["--method", "uniform", "--bits", "3"]
TUNED = [*UNIFORM, "--tune-steps", "6", "--n-calibration", "6"]


def files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


def assert_same_bytes(a, b):
    assert files(a) == files(b), (files(a), files(b))
    _, different, errors = filecmp.cmpfiles(a, b, files(a), shallow=False)
    assert not different and not errors, (different, errors)


def convert(out, *flags):
    text, _ = optiq("convert", MODEL, "-o", out, "--progress", "none", "--json", f"{out}.json", *flags)
    return text, json.loads(Path(f"{out}.json").read_text())


def kl(model, tmp):
    optiq("eval", model, "--task", "kl", "--reference", MODEL, "--data",
          MODEL / "eval_arithmetic.jsonl", "--limit", "16", "--json", tmp / "kl.json")
    return json.loads((tmp / "kl.json").read_text())["mean_kl"]


def tuning_helps(tmp):
    convert(tmp / "plain", *UNIFORM)
    text, result = convert(tmp / "tuned", *TUNED)
    found = result["tuning"]
    assert 0 < found["best_step"] <= 6 and found["kl_after"] < found["kl_before"], found
    assert result["tuned_steps"] == found["best_step"], result
    assert f"(step {found['best_step']} of 6)" in text, text
    assert result["calibration"] == "mix" and result["calibration_tokens"] == 6 * 512, result
    before, after = kl(tmp / "plain", tmp), kl(tmp / "tuned", tmp)
    print(f"KL on questions: {before:.4f}, tuned {after:.4f}")
    assert after < before, (before, after)
    a, b = ((tmp / name / "model.safetensors").stat().st_size for name in ("plain", "tuned"))
    assert a == b, (a, b)


def threads_change_no_byte(tmp):
    convert(tmp / "again", *TUNED, "--threads", "1")
    assert_same_bytes(tmp / "tuned", tmp / "again")


def killed_and_run_again(tmp, seconds):
    moments = random.Random(4)
    for i in range(2):
        out = tmp / f"killed{i}"
        process = subprocess.Popen([BIN, "convert", MODEL, "-o", out, *TUNED],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 0.8) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        convert(out, *TUNED)
        assert_same_bytes(tmp / "tuned", out)


def a_calibration_of_both(tmp):
    _, result = convert(tmp / "both", *UNIFORM, "--tune-steps", "1", "--n-calibration", "4",
                        "--calibration", "both")
    assert result["calibration"] == "both", result
    _, dry = convert(tmp / "dry", *TUNED, "--dry-run")
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
        start = time.monotonic()
        threads_change_no_byte(tmp)
        killed_and_run_again(tmp, time.monotonic() - start)
        a_calibration_of_both(tmp)
        what_is_refused(tmp)
    print("ok")


if __name__ == "__main__":
    main()
