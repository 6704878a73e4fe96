"""Conversions of families that differ in their modules: fused projections, and
biases, in stock mlx-lm (family_convert_slow.py: all families)."""

from pathlib import Path

from _family_cases import all_cases
from _family_convert import compare_converted, plain_cases
from _support import scratch

FAMILIES = ["phi3", "qwen2", "gemma4_text"]


def main():
    done = []
    for name, module, config in plain_cases(all_cases()):
        if config["model_type"] in FAMILIES:
            with scratch() as folder:
                widths = compare_converted(
                    name, module, config, Path(folder), "--method", "static", "--target-bpw", "5",
                    "--candidate-bits", "4,8")
            assert widths == {4, 8}, (name, widths)
            done.append(config["model_type"])
    assert sorted(done) == sorted(FAMILIES), done


main()
