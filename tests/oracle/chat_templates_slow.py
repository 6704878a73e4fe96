"""Renders the published templates inside the llama-cpp-python source package
over all conversations, and 30,000 generated templates, byte for byte as jinja2
does."""

import os
import pathlib
import sys
import tarfile

from _chat_template_data import DATA
from _chat_template_fuzz import generated
from _chat_templates import compare, environment, requests

PACKAGE = "llama_cpp_python-0.3.36.tar.gz"
FOLDER = "vendor/llama.cpp/models/templates/"


def templates(path):
    with tarfile.open(path) as archive:
        for member in archive:
            if FOLDER in member.name and member.name.endswith(".jinja"):
                yield pathlib.Path(member.name).name, archive.extractfile(member).read().decode()


def main():
    cache = os.environ.get("OPTIQ_CACHE_DIR") or pathlib.Path.home() / ".cache/optiq"
    package = pathlib.Path(cache) / "sdist" / PACKAGE
    if not package.exists():
        print(f"{package} is not there: pip download --no-deps --no-binary :all: "
              "llama-cpp-python==0.3.36")
        return 77
    only = sys.argv[1:]
    table = requests()
    totals = [0, 0, 0]
    n_templates = 0
    for name, source in sorted(templates(package)):
        if only and not any(part in name for part in only):
            continue
        n_templates += 1
        names = list(table)
        counts = compare([(source, table[n]) for n in names], lambda i: f"{name}: {names[i]}")
        totals = [a + b for a, b in zip(totals, counts)]
        print(f"{name}: {counts[0]} equal texts, {counts[1]} equal refusals, {counts[2]} differ")
    print(f"{n_templates} templates x {len(table)} conversations: {totals[0]} equal texts, "
          f"{totals[1]} refused by both, {totals[2]} differ")
    made = generated(environment(), rounds=105, seed=21)
    counts = compare([(source, DATA) for source in made], lambda i: made[i])
    print(f"{len(made)} generated templates: {counts[0]} equal texts, {counts[1]} refused by both, "
          f"{counts[2]} differ")
    totals[2] += counts[2]
    if not only and n_templates != 70:
        print(f"found {n_templates} templates, expected 70")
        return 1
    return 1 if totals[2] else 0


if __name__ == "__main__":
    sys.exit(main())
