"""optiq lora train as a user runs it: what it writes, going on, and what is
refused. Few steps on the last layers: nothing is learned here
(lora_train_slow)."""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from _small_model import write_small_model
from _training import ADAPTER, LOG, STATE, Training, expect_same, leftovers, log_of, make_task, train

from _support import MODEL, optiq, scratch

STEPS = 8
SHORT = {"iters": STEPS, "batch-size": 1, "num-layers": 1, "rank": 2, "save-every": 2, "lr": "1e-3", "warmup": 2,
         "dropout": "0.1", "alpha": 4}  # fmt: skip


def flags(**changes):
    chosen = SHORT | {name.replace("_", "-"): value for name, value in changes.items()}
    return [word for name, value in chosen.items() for word in (f"--{name}", value)]


def hashes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_output(folder, data):
    before = hashes(MODEL)
    whole = folder / "whole"
    out, err = train(MODEL, data, whole, *flags())
    assert f"steps         {STEPS}" in out and "validation" in out and "tokens/s" in out, out
    assert "tokens/s" in err and '"eta"' in err, err
    assert sorted(path.name for path in whole.iterdir()) == sorted([*ADAPTER, LOG])
    steps = log_of(whole)
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert [step["step"] for step in steps if "valid_loss" in step] == [2, 4, 6, 8]
    info = json.loads(optiq("lora", "info", whole, "--json")[0])
    assert info["training"]["best_step"] == min(
        (step for step in steps if "valid_loss" in step), key=lambda step: step["valid_loss"]
    )["step"]
    assert info["training"]["train_examples"] == 12
    assert {module["rank"] for module in info["modules"].values()} == {2}, info["modules"]
    # An adapter of bf16 modules, which have the rank itself, moves the model;
    # without it nothing is another.
    prompt = ("generate", MODEL, "-p", "What is 30 zorp 3?", "--temp", "0", "--max-tokens", "8")
    optiq(*prompt, "--adapter", whole)
    assert hashes(MODEL) == before
    optiq("report", MODEL, "--adapter", whole, "-o", folder / "page.html")
    page = (folder / "page.html").read_text()
    assert "Loss by step" in page and ": scale 2" in page, page[-2000:]
    write_small_model(folder / "small")
    _, err = optiq("report", folder / "small", "--adapter", whole, "-o", folder / "none.html", expect=2)
    assert "Was it trained on another model?" in err, err
    return whole


def end_after_checkpoint(number, *arguments):
    """A training that gets a signal behind its first checkpoint."""
    training = Training(*arguments)
    output = arguments[2]
    while not (output / STATE).exists():
        assert training.process.poll() is None, training.process.communicate()
        time.sleep(0.005)
    os.kill(training.process.pid, number)
    _, err = training.process.communicate(timeout=600)
    assert (output / STATE).exists(), "it ended before the signal came"
    assert 2 <= len(log_of(output)) < STEPS
    optiq("lora", "info", output)
    return training.process.returncode, err


def check_going_on(folder, data, whole):
    """Killed or interrupted, it goes on to the same bytes."""
    killed = folder / "killed"
    status, _ = end_after_checkpoint(signal.SIGKILL, MODEL, data, killed, *flags())
    assert status == -signal.SIGKILL
    interrupted = folder / "interrupted"
    status, err = end_after_checkpoint(signal.SIGINT, MODEL, data, interrupted, *flags())
    assert status == 130 and "--resume goes on from it" in err, (status, err)
    check_full_disk(interrupted, data)
    for output in (killed, interrupted):
        train(MODEL, data, output, *flags(), "--resume")
        expect_same(whole, output)
    assert leftovers(folder) == []
    _, err = train(MODEL, data, whole, *flags(), "--resume")
    assert "finished already" in err, err


def limit_files():
    """Files end at 16 kB, less than the tensors take: as a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))


def check_full_disk(output, data):
    before = hashes(output)
    _, err = train(MODEL, data, output, *flags(), "--resume", expect=7,
                   preexec_fn=limit_files, restore_signals=False)  # fmt: skip
    assert "was not written; that of step" in err and "is whole in" in err, err
    assert hashes(output) == before


def check_refusals(folder, data, whole):
    def refuse(status, says, *arguments):
        _, err = train(*arguments, expect=status)
        assert says in err, (says, err)

    bad = folder / "bad"
    bad.mkdir()
    good = (data / "train.jsonl").read_text()
    output = folder / "refused"
    for content, status, says in (
        ("", 2, "found no lines"),
        (good + '{"text": 3}\n', 5, "train.jsonl, line 13"),
        (good + "{", 5, "train.jsonl, line 13"),
        (good + '{"messages": []}\n', 2, "line 13: messages"),
    ):
        (bad / "train.jsonl").write_text(content)
        refuse(status, says, MODEL, bad, output)
    refuse(3, "train.jsonl", MODEL, folder / "none", output)
    refuse(2, "already exists", MODEL, data, whole, *flags())
    refuse(2, "trained with lr", MODEL, data, whole, *flags(lr="2e-3"), "--resume")
    refuse(3, "no training to go on from", MODEL, data, output, *flags(), "--resume")
    refuse(2, "by_kl", MODEL, data, output, "--rank-scaling", "by_kl")
    refuse(2, "target module 'x_proj'", MODEL, data, output, "--target-modules", "x_proj")
    refuse(2, "--alpha does not go with --scale", MODEL, data, output, "--alpha", 3, "--scale", 1)
    refuse(2, "found a loss of", MODEL, data, output, *flags(lr="1e30", warmup=0, clip=0, save_every=50))
    assert not output.exists() and leftovers(folder) == []


def main():
    with scratch() as folder:
        folder = Path(folder)
        data = make_task(folder / "data", "zorp", train=12, valid=2, test=1)
        whole = check_output(folder, data)
        check_going_on(folder, data, whole)
        check_refusals(folder, data, whole)


main()
