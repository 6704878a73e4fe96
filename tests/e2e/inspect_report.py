"""optiq inspect and optiq report on full-precision and quantized models."""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))

from _inspect_page import read_page
from _support import MODEL, optiq, scratch

NAMESPACE = "{http://www.w3.org/1999/xhtml}"


def weight_bytes(model):
    return sum(f.stat().st_size for f in Path(model).glob("model*.safetensors"))


def inspect_json(model):
    return json.loads(optiq("inspect", model, "--json")[0])


def check_inspect(model, widths):
    found = inspect_json(model)
    assert found["file_bytes"] == weight_bytes(model)
    assert sum(found["sizes"].values()) == found["file_bytes"]
    bpw = 8 * found["file_bytes"] / found["parameters"]
    assert abs(found["file_bpw"] - bpw) < 1e-9
    assert {m["bits"] for m in found["modules"].values()} == widths
    table = optiq("inspect", model)[0]
    assert f"{found['file_bpw']:.3f}" in table
    assert f"{found['nominal_bpw']:.3f}" in table
    lines = table.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    rows = [line.split() for line in lines[head + 1 : head + 9]]
    assert [row[0] for row in rows] == [str(i) for i in range(8)], rows
    # Three of four layers are delta nets: five projections, no q k v o.
    cells = [cell for row in rows for cell in row[1:]]
    assert cells.count(".") == 6 * 4 + 2 * 5, cells
    return found


def check_page(model, page, marks):
    optiq("report", model, "-o", page)
    root, text = read_page(page)
    for mark in marks:
        assert mark in text, mark
    found = inspect_json(model)
    assert f"{found['file_bpw']:.3f}" in text
    assert f"{found['nominal_bpw']:.3f}" in text
    titles = [t.text for t in root.iter(NAMESPACE + "title")]
    for name, module in found["modules"].items():
        if ".layers." in name:
            start = f"{name}: {module['bits']} bits"
            assert any(t.startswith(start) for t in titles), start
    return root, text


def main():
    with scratch() as folder:
        folder = Path(folder)
        check_inspect(MODEL, {16})
        _, text = check_page(MODEL, folder / "bf16.html", ["no measured sens"])
        assert "Results" not in text

        out = folder / "a <&> b"
        optiq(
            "convert", MODEL, "-o", out, "--target-bpw", "4.5",
            "--candidate-bits", "4,8", "--n-calibration", "2",
        )  # fmt: skip
        check_inspect(out, {4, 8})
        data = MODEL / "eval_arithmetic.jsonl"
        optiq(
            "eval", out, "--task", "ppl", "--data", data, "--limit", "3",
            "--json", out / "optiq" / "eval_ppl.json",
        )  # fmt: skip
        root, text = check_page(
            out,
            folder / "mixed.html",
            ["a <&> b", "ppl on eval_arithmetic.jsonl", "Most sensitive"],
        )
        measured = json.loads((out / "optiq" / "sensitivity.json").read_text())
        points = sum(len(m["sensitivities"]) for m in measured["layers"])
        assert len(list(root.iter(NAMESPACE + "circle"))) == points

        shutil.rmtree(out / "optiq")
        check_page(out, folder / "bare.html", ["no record of a conversion"])

        _, error = optiq("inspect", folder / "absent", expect=3)
        assert "absent" in error and error.count("\n") == 1, error
        _, error = optiq("inspect", expect=2)
        assert "no model" in error
        optiq("report", MODEL, expect=2)
        _, error = optiq("report", MODEL, "-o", folder / "no" / "x.html", expect=3)
        assert "x.html" in error, error


main()
