"""Every family converted to uniform and static widths, and two by measured
sensitivities, in stock mlx-lm."""

from pathlib import Path

from _family_cases import all_cases
from _family_convert import compare_converted, plain_cases
from _support import scratch

MEASURED = ["phi3", "cohere2"]
MIXED = ["--target-bpw", "5", "--candidate-bits", "4,8"]


def main():
    for name, module, config in plain_cases(all_cases()):
        with scratch() as folder:
            widths = compare_converted(name, module, config, Path(folder), "--method", "uniform", "--bits", "4")
        assert widths == {4}, (name, widths)
        with scratch() as folder:
            widths = compare_converted(name, module, config, Path(folder), "--method", "static", *MIXED)
        assert widths == {4, 8}, (name, widths)
        if config["model_type"] in MEASURED:
            with scratch() as folder:
                widths = compare_converted(
                    name, module, config, Path(folder), "--method", "optiq", "--n-calibration", "1", *MIXED)
            assert widths == {4, 8}, (name, widths)


main()
