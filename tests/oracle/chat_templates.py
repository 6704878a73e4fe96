"""Renders small templates and whole conversations byte for byte as jinja2."""

import os
import pathlib
import sys

from _chat_template_cases import cases
from _chat_template_data import DATA
from _chat_template_fuzz import generated, missing
from _chat_templates import compare, driver_names, environment, requests
from _own_templates import OWN_TEMPLATES


def main():
    table = cases()
    counts = compare(table, lambda i: table[i][0])
    print(f"{len(table)} small templates: {counts[0]} equal texts, {counts[1]} refused by both, "
          f"{counts[2]} differ")
    different = counts[2]

    lacking = missing(environment(), driver_names())
    print(f"{len(lacking)} names of builtins differ without a reason {lacking}")
    different += len(lacking)

    made = generated(environment(), rounds=8)
    counts = compare([(source, DATA) for source in made], lambda i: made[i])
    print(f"{len(made)} generated templates: {counts[0]} equal texts, {counts[1]} refused by both, "
          f"{counts[2]} differ")
    different += counts[2]

    tiny = pathlib.Path(os.environ["OPTIQ_TEST_MODEL"]) / "chat_template.jinja"
    templates = {"tiny-qwen3.5": tiny.read_text(encoding="utf-8"), **OWN_TEMPLATES}
    conversations = requests(everything=False)
    names = list(conversations)
    for name, source in templates.items():
        pairs = [(source, conversations[n]) for n in names]
        counts = compare(pairs, lambda i: f"{name}: {names[i]}")
        print(f"{name} x {len(names)} conversations: {counts[0]} equal texts, {counts[1]} refused "
              f"by both, {counts[2]} differ")
        different += counts[2]
        if not counts[0]:
            print(f"{name}: no conversation renders")
            different += 1
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
