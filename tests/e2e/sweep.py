"""optiq sweep as a user runs it, on tiny-qwen3.5."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _inspect_page import read_page
from _support import MODEL, optiq, scratch

NAMESPACE = "{http://www.w3.org/1999/xhtml}"
QUESTIONS = MODEL / "eval_arithmetic.jsonl"
PLAN = ["--candidate-bits", "3,4,8", "--n-calibration", "2", "--protect", "off"]


def task(point, name, data):
    return next(r for r in point["results"] if r["task"] == name and r["data"] == data)


def main():
    with scratch() as folder:
        tmp = Path(folder)
        env = {"OPTIQ_CACHE_DIR": str(tmp / "cache")}
        text = tmp / "text.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 40)
        convert = ["convert", MODEL, *PLAN, "--target-file-bpw", "4.5", "-o", tmp / "own"]
        optiq(*convert, env=env)
        out = tmp / "sweep"
        sweep = ["sweep", MODEL, *PLAN, "--file-bpw", "2:4.5:1.25", "--data", QUESTIONS, "--data",
                 text, "--limit", "4", "--also", tmp / "own", "-o", out]
        table, notes = optiq(*sweep, env=env)
        assert sorted(os.listdir(out)) == ["sweep.html", "sweep.json"], os.listdir(out)
        found = json.loads((out / "sweep.json").read_text())
        points = {(p["series"], p["label"]): p for p in found["points"]}
        # The candidates take 3.6 bits per weight; uniform has 2 and 3 bits in the range.
        assert list(points) == [
            ("optiq", "4.5"), ("static", "4.5"), ("uniform", "2 bits, groups of 64"),
            ("uniform", "3 bits, groups of 64"), ("own", "as it is")], list(points)
        assert "optiq has no plan at 2, 3.25" in notes and "static" in notes, notes
        for (series, label), point in points.items():
            assert point["file_bpw"] <= 4.5, point["file_bpw"]
            assert f"{point['bytes']}" in table
            for data in (QUESTIONS.name, text.name):
                assert task(point, "kl", data)["mean_kl"] > 0
                assert task(point, "ppl", data)["ppl"] > 1
            assert task(point, "exact-match", QUESTIONS.name)["count"] == 4
        # What is made on the way is what convert makes.
        assert points["optiq", "4.5"]["bytes"] == points["own", "as it is"]["bytes"]
        for result, other in zip(*(points[p]["results"] for p in
                                   (("optiq", "4.5"), ("own", "as it is")))):
            assert {**result, "model": ""} == {**other, "model": ""}
        optiq("eval", tmp / "own", "--task", "kl", "--reference", MODEL, "--data", QUESTIONS,
              "--limit", "4", "--json", tmp / "kl.json")
        measured = json.loads((tmp / "kl.json").read_text())["mean_kl"]
        assert measured == task(points["own", "as it is"], "kl", QUESTIONS.name)["mean_kl"]
        root, words = read_page(out / "sweep.html")
        assert len(list(root.iter("{http://www.w3.org/2000/svg}svg"))) + len(
            list(root.iter(NAMESPACE + "svg"))) >= 5
        assert "tiny-qwen3.5" in words
        _, error = optiq(*sweep, expect=2, env=env)
        assert "--overwrite" in error, error
        _, error = optiq("sweep", MODEL, "--file-bpw", "3:4", "--data", text, "-o", tmp / "other",
                         expect=2, env=env)
        assert "LOW:HIGH:STEP" in error, error
        assert not (tmp / "other").exists()
        before = (out / "sweep.json").read_bytes(), (out / "sweep.html").read_bytes()
        optiq(*sweep, "--overwrite", env=env)
        assert before == ((out / "sweep.json").read_bytes(), (out / "sweep.html").read_bytes())
    print("ok")


if __name__ == "__main__":
    main()
