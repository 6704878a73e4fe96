"""optiq convert as a user runs it, on tiny-qwen3.5; mlx-lm judges the result."""

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

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, assert_same_bytes, files, optiq, scratch

PLAN = ["--target-bpw", "4.5", "--candidate-bits", "4,8", "--n-calibration", "2"]
MEASURE = [*PLAN, "--sensitivity", "exact"]


def weight_bytes(folder):
    return sum(p.stat().st_size for p in folder.glob("model*.safetensors"))


def only(folder, *names):
    """Nothing but `names` lies in the folder: no staging left behind."""
    assert sorted(os.listdir(folder)) == sorted(names), os.listdir(folder)


def writes_what_it_planned(tmp, env):
    out = tmp / "mixed"
    text, _ = optiq("convert", MODEL, "-o", out, *MEASURE, "--json", tmp / "r.json", env=env)
    assert "bits per weight" in text and "protected" in text, text
    result = json.loads((tmp / "r.json").read_text())
    metadata = json.loads((out / "optiq" / "metadata.json").read_text())
    assert result["file_bytes"] == metadata["file_bytes"] == weight_bytes(out)
    assert 4.0 <= metadata["achieved_bpw"] <= 4.5
    assert metadata["calibration"] == "mix" and len(metadata["calibration_hash"]) == 64
    assert metadata["calibration_tokens"] > 0
    config = json.loads((out / "config.json").read_text())
    assert list(config) == sorted(config)
    assert config["quantization"] == config["quantization_config"]
    for name, layer in metadata["per_layer"].items():
        assert config["quantization"][name] == {"bits": layer["bits"], "group_size": 64}
        assert layer["protected"] or layer["kl"] > 0, name
        assert not layer["protected"] or layer["bits"] == 8, name
    assert config["mtp_file"] == "optiq/mtp.safetensors"
    for name in ("README.md", "tokenizer.json", "generation_config.json", "optiq/sensitivity.json",
                 "optiq/mtp.safetensors", "model.safetensors.index.json"):
        assert (out / name).exists(), name
    everything = "".join(
        (out / n).read_text() for n in ("README.md", "config.json", "optiq/metadata.json"))
    assert str(MODEL.parent) not in everything and str(tmp) not in everything


def mlx_lm_loads_it(tmp):
    import mlx.core as mx
    from mlx_lm import load

    model, tokenizer = load(str(tmp / "mixed"))
    tokens = mx.array(tokenizer.encode("Anna has 24 apples. Ben gives Anna 18 apples."))[None]
    assert np.isfinite(np.array(model(tokens).astype(mx.float32))).all()
    metadata = json.loads((tmp / "mixed" / "optiq" / "metadata.json").read_text())
    seen = 0
    for name, module in model.named_modules():
        if hasattr(module, "bits"):
            assert module.bits == metadata["per_layer"][name]["bits"], name
            seen += 1
    assert seen == len(metadata["per_layer"])


def a_measurement_serves_later_targets(tmp, env):
    start = time.monotonic()
    optiq("convert", MODEL, "-o", tmp / "smaller", "--target-size", "5.8MB", "--candidate-bits",
          "4,8", "--n-calibration", "2", "--sensitivity", "exact", "--save-plan",
          tmp / "plan.json", env=env)
    assert weight_bytes(tmp / "smaller") <= 5_800_000
    first = json.loads((tmp / "mixed" / "optiq" / "sensitivity.json").read_text())
    second = json.loads((tmp / "smaller" / "optiq" / "sensitivity.json").read_text())
    assert first == second
    optiq("convert", MODEL, "-o", tmp / "planned", "--plan", tmp / "plan.json", env=env)
    assert filecmp.cmp(tmp / "planned" / "model.safetensors",
                       tmp / "smaller" / "model.safetensors", shallow=False)
    print(f"two targets from one measurement: {time.monotonic() - start:.1f} s")


def uniform_is_what_mlx_lm_converts(tmp, env):
    import mlx.core as mx
    from mlx_lm import convert

    optiq("convert", MODEL, "-o", tmp / "u4", "--method", "uniform", "--bits", "4", env=env)
    convert(str(MODEL), str(tmp / "theirs"), quantize=True, q_bits=4, q_group_size=64)
    ours = mx.load(str(tmp / "u4" / "model.safetensors"))
    theirs = mx.load(str(tmp / "theirs" / "model.safetensors"))
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        assert mx.array_equal(value, theirs[name]).item(), name
    metadata = json.loads((tmp / "u4" / "optiq" / "metadata.json").read_text())
    data = sum(value.nbytes for value in ours.values())
    parameters = json.loads((tmp / "u4" / "model.safetensors.index.json").read_text())
    parameters = parameters["metadata"]["total_parameters"]
    assert abs(8 * data / parameters - 4.533) < 0.0005  # what mlx-lm prints
    assert metadata["file_bpw"] == 8 * weight_bytes(tmp / "u4") / parameters
    assert {layer["bits"] for layer in metadata["per_layer"].values()} == {4}


def dry_run_writes_nothing(tmp, env):
    before = files(tmp)
    text, _ = optiq("convert", MODEL, "-o", tmp / "dry", *MEASURE, "--dry-run", env=env)
    assert "RAM" in text and "nothing was written" in text
    assert files(tmp) == before


def refuses_bad_input(tmp, env):
    def refused(*arguments, code=2, says):
        _, error = optiq("convert", *arguments, expect=code, env=env)
        assert error.startswith("optiq: ") and error.count("\n") == 1, error
        for part in says:
            assert part in error, error

    out = tmp / "refused"
    refused(MODEL, "-o", tmp / "mixed", "--method", "uniform", says=["--overwrite"])
    refused(MODEL, "-o", out, "--target-size", "1MB", says=["least possible"])
    refused(MODEL, "-o", out, "--target-bpw", "2", says=["least possible", "4"])
    refused(MODEL, "-o", out, "--candidate-bits", "4,9", says=["9"])
    refused(MODEL, "-o", out, "--group-size", "48", says=["48"])
    refused(MODEL, "-o", out, "--group-size", "32,64", says=["--target-size"])
    refused(MODEL, "-o", out, "--group-size", "32,64", "--method", "uniform", says=["uniform"])
    refused(MODEL, "-o", out, "--bits", "4", says=["--bits"])
    refused(MODEL, "-o", out, "--sensitivity", "guess", says=["guess", "fast"])
    refused(tmp / "absent", "-o", out, code=3, says=["absent"])
    refused(tmp / "u4", "-o", out, code=4, says=["quantized already"])
    (tmp / "empty.txt").write_text("")
    refused(MODEL, "-o", out, "--calibration", tmp / "empty.txt", says=["no text"])
    with open(tmp / "huge.txt", "wb") as huge:
        huge.truncate(2_000_000_000)
    refused(MODEL, "-o", out, "--calibration", tmp / "huge.txt", says=["2000000000"])
    folder = tmp / "letters"
    folder.mkdir()
    (folder / "precious.txt").write_text("keep me")
    refused(MODEL, "-o", folder, "--overwrite", "--method", "uniform", says=["'precious.txt'"])
    assert (folder / "precious.txt").read_text() == "keep me"
    copy = tmp / "copy"
    shutil.copytree(MODEL, copy)
    refused(copy, "-o", copy, "--overwrite", "--method", "uniform", says=["source"])
    assert_same_bytes(copy, Path(MODEL))
    assert not out.exists()


def overwrite_replaces_after_success(tmp, env):
    target = tmp / "replaced"
    optiq("convert", MODEL, "-o", target, "--method", "uniform", "--bits", "8", env=env)
    optiq("convert", MODEL, "-o", target, "--method", "uniform", "--bits", "2", "--overwrite",
          env=env)
    metadata = json.loads((target / "optiq" / "metadata.json").read_text())
    assert {layer["bits"] for layer in metadata["per_layer"].values()} == {2}


def prints_progress(tmp, env):
    _, error = optiq("convert", MODEL, "-o", tmp / "p1", "--method", "uniform", "--progress",
                     "json", env=env)
    events = [json.loads(line) for line in error.splitlines()]
    assert events and events[-1]["done"] == events[-1]["total"] > 0
    _, error = optiq("convert", MODEL, "-o", tmp / "p2", "--method", "uniform", "--progress",
                     "none", env=env)
    assert error == ""
    _, error = optiq("convert", MODEL, "-o", tmp / "p3", "--method", "uniform", env=env)
    assert "\r" not in error and "write: " in error


def two_runs_are_equal_also_after_kills(tmp, expected, flags):
    """Five converts killed at random moments and rerun, each with a new cache."""
    tmp = tmp / f"kills-of-{expected.name}"
    tmp.mkdir()
    fresh = {"OPTIQ_CACHE_DIR": str(tmp / "cache0")}
    command = ["convert", MODEL, *flags, "-o"]
    start = time.monotonic()
    optiq(*command, tmp / "again", env=fresh)
    seconds = time.monotonic() - start
    assert_same_bytes(expected, tmp / "again")
    moments = random.Random(5)
    for i in range(5):
        folder = tmp / f"killed{i}"
        folder.mkdir()
        out = folder / "out"
        env = {**os.environ, "OPTIQ_CACHE_DIR": str(tmp / f"cache{i + 1}")}
        process = subprocess.Popen([BIN, *command, out], env=env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.05, 0.95) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not out.exists():
            optiq(*command, out, env={"OPTIQ_CACHE_DIR": str(tmp / f"cache{i + 1}")})
        assert_same_bytes(expected, out)
        only(folder, "out")


def ranks(values):
    return np.argsort(np.argsort(values))


def an_estimate_ranks_like_the_measurement(tmp, env):
    """Matrices of one kind of text and size; those of 1024 weights are noise to both."""
    optiq("convert", MODEL, "-o", tmp / "estimated", *PLAN, "--sensitivity", "fast", env=env)
    found, truth = (json.loads((tmp / name / "optiq" / "sensitivity.json").read_text())
                    for name in ("estimated", "mixed"))
    assert found["form"] == "fast" and found["key"] != truth["key"]
    truth = {layer["layer_name"]: layer["sensitivities"] for layer in truth["layers"]}
    for bits in ("4", "8"):
        pairs = np.array([(layer["sensitivities"][bits], truth[layer["layer_name"]][bits])
                          for layer in found["layers"] if layer["param_count"] > 1024])
        assert np.corrcoef(ranks(pairs[:, 0]), ranks(pairs[:, 1]))[0, 1] > 0.9, bits
        assert 0.8 < np.exp(np.log(pairs[:, 0] / pairs[:, 1]).mean()) < 1.25, bits


# Widths of 2 bits and groups of several sizes, by the default form.
SETTLE = ["--target-file-bpw", "2.9", "--candidate-bits", "2,3,4,8", "--group-size", "32,64,128",
          "--n-calibration", "2", "--protect", "off"]


def what_decides_is_measured(tmp, env):
    out = tmp / "settled"
    optiq("convert", MODEL, "-o", out, *SETTLE, env=env)
    settled = json.loads((out / "optiq" / "sensitivity.json").read_text())
    assert settled["form"] == "auto" and settled["group_size"] == 32
    assert {layer["group_size"] for layer in settled["other_groups"]} == {64, 128}
    # Estimates of 2 bits that the plan chose were measured: they have changed.
    optiq("convert", MODEL, "-o", tmp / "unsettled", *SETTLE, "--sensitivity", "fast", env=env)
    unsettled = json.loads((tmp / "unsettled" / "optiq" / "sensitivity.json").read_text())

    def by_choice(sensitivity):
        return {(layer["layer_name"], layer.get("group_size", 32), int(bits)): kl
                for layer in sensitivity["layers"] + sensitivity["other_groups"]
                for bits, kl in layer["sensitivities"].items()}

    before, after = by_choice(unsettled), by_choice(settled)
    plan = json.loads((out / "optiq" / "metadata.json").read_text())["per_layer"]
    chosen = {(name, layer["group_size"], layer["bits"]) for name, layer in plan.items()}
    unsure = {choice for choice in chosen if choice[2] == 2}
    assert unsure and all(before[choice] != after[choice] for choice in unsure), unsure
    assert sum(before[choice] != after[choice] for choice in before) < len(before) / 2


def an_interrupt_ends_with_130(tmp):
    env = {**os.environ, "OPTIQ_CACHE_DIR": str(tmp / "cache-interrupt")}
    folder = tmp / "interrupted"
    folder.mkdir()
    process = subprocess.Popen(
        [BIN, "convert", MODEL, "-o", folder / "out", *MEASURE, "--progress", "json"], env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    process.stderr.readline()  # the measurement runs
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130, (process.returncode, error)
    assert "interrupted" in error
    only(folder)


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        writes_what_it_planned(tmp, env)
        mlx_lm_loads_it(tmp)
        a_measurement_serves_later_targets(tmp, env)
        uniform_is_what_mlx_lm_converts(tmp, env)
        dry_run_writes_nothing(tmp, env)
        refuses_bad_input(tmp, env)
        overwrite_replaces_after_success(tmp, env)
        prints_progress(tmp, env)
        two_runs_are_equal_also_after_kills(tmp, tmp / "mixed", MEASURE)
        an_estimate_ranks_like_the_measurement(tmp, env)
        what_decides_is_measured(tmp, env)
        two_runs_are_equal_also_after_kills(tmp, tmp / "settled", SETTLE)
        an_interrupt_ends_with_130(tmp)
    print("ok")


if __name__ == "__main__":
    main()
