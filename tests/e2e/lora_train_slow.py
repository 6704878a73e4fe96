"""What training is for, and that no kill loses anything: tiny-qwen3.5 at 4/8
bits learns a task that it does not know, to the same bytes twice; a training
killed at 20 random moments goes on each time, to the bytes of one that was left
alone."""

import json
import random
import time
from pathlib import Path

from _training import STATE, Training, expect_same, leftovers, log_of, make_task, train

from _support import MODEL, optiq, scratch

MINUTES = 10
KILLS = 20
LEARN = ("--iters", 90, "--batch-size", 8, "--lr", "2e-3", "--warmup", 9, "--save-every", 15)
SHORT = ("--iters", 60, "--batch-size", 2, "--num-layers", 4, "--rank", 4, "--save-every", 2, "--dropout", "0.1")


def accuracy(model, data, result, *more):
    optiq("eval", model, "--task", "exact-match", "--data", data / "test.jsonl", "--max-tokens", "48",
          "--progress", "none", "--json", result, *more)  # fmt: skip
    return json.loads(result.read_text())["accuracy"]


def check_learning(folder, model):
    data = make_task(folder / "zorp", "zorp")
    values = {json.loads(line)["value"] for line in (data / "test.jsonl").open()}
    questions = sum(1 for _ in (data / "test.jsonl").open())
    assert questions >= 200 and len(values) > questions / 2, (questions, len(values))
    before = accuracy(model, data, folder / "before.json")
    start = time.monotonic()
    whole = folder / "whole"
    train(model, data, whole, *LEARN)
    seconds = time.monotonic() - start
    after = accuracy(model, data, folder / "after.json", "--adapter", whole)
    print(f"{questions} questions: {before:.1%} right before, {after:.1%} after {seconds:.0f} s of training")
    assert before < 0.1 and after > 0.9 and seconds <= 60 * MINUTES
    # Nothing of the model has changed.
    (folder / "before.json").unlink()
    assert accuracy(model, data, folder / "before.json") == before

    again = folder / "again"
    half = Training(model, data, again, *LEARN)
    while not (again / STATE).exists() or len(log_of(again)) < 45:
        assert half.process.poll() is None, half.process.communicate()
        time.sleep(0.1)
    half.end_at(0)
    train(model, data, again, *LEARN, "--resume")
    expect_same(whole, again)


def check_kills(folder):
    data = make_task(folder / "short", "mirror", train=40, valid=2, test=1)
    whole = folder / "alone"
    start = time.monotonic()
    train(MODEL, data, whole, *SHORT)
    seconds = time.monotonic() - start
    output = folder / "killed"
    draw = random.Random(7)
    kills = checkpoints = steps = 0
    while kills < KILLS:
        resume = ["--resume"] if output.exists() else []
        training = Training(MODEL, data, output, *SHORT, *resume)
        time.sleep(draw.uniform(0, seconds / 2))
        if training.process.poll() is not None:  # at its end: begin again
            training.wait()
            expect_same(whole, output)
            for path in output.iterdir():
                path.unlink()
            output.rmdir()
            steps = 0
            continue
        training.end_at(0)
        kills += 1
        if output.exists():
            optiq("lora", "info", output)
            assert len(log_of(output)) >= steps
            checkpoints += len(log_of(output)) > steps
            steps = len(log_of(output))
    train(MODEL, data, output, *SHORT, *(["--resume"] if output.exists() else []))
    expect_same(whole, output)
    assert leftovers(folder) == []
    print(f"{kills} kills, {checkpoints} of them behind a new checkpoint")
    assert checkpoints > 1


def main():
    with scratch() as folder:
        folder = Path(folder)
        model = folder / "four-eight"
        optiq("convert", MODEL, "--method", "static", "--target-bpw", "5", "--candidate-bits", "4,8", "-o", model,
              "--progress", "none")  # fmt: skip
        check_kills(folder)
        check_learning(folder, model)


main()
