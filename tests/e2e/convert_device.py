"""optiq convert --device as a user runs it: another device measures what the CPU measures, and what
only the CPU does is refused with both flags named."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _small_model import write_small_model
from _support import optiq, scratch

FLAGS = ["--candidate-bits", "3,4,8", "--protect", "off", "--target-file-bpw", "4.5", "--n-calibration", "3",
         "--calibration", "mix"]  # fmt: skip


def measured(model, out, *flags):
    """KL by module and width, and the result, each from an empty cache."""
    optiq("convert", model, "-o", out, *FLAGS, *flags, "--json", out.parent / "result.json",
          env={"OPTIQ_CACHE_DIR": f"{out}.cache"})  # fmt: skip
    sensitivity = json.loads((out / "optiq" / "sensitivity.json").read_text())
    kl = {(layer["layer_name"], bits): value
          for layer in sensitivity["layers"] for bits, value in layer["sensitivities"].items()}  # fmt: skip
    return kl, json.loads((out.parent / "result.json").read_text())


def devices_measure_alike(model, tmp, *flags, bound):
    cpu, of_cpu = measured(model, tmp / f"cpu{len(flags)}", *flags)
    mlx, of_mlx = measured(model, tmp / f"mlx{len(flags)}", *flags, "--device", "mlx")
    assert (of_cpu["device"], of_mlx["device"]) == ("cpu", "mlx")
    assert cpu.keys() == mlx.keys() and len(cpu) >= 3, len(cpu)
    worst = max(abs(cpu[key] - mlx[key]) / cpu[key] for key in cpu)
    print(f"{flags}: largest relative difference {worst:.2g}")
    # Not the same numbers: it was the other device that measured.
    assert 0 < worst < bound, worst


def what_only_the_cpu_does_is_refused(model, tmp):
    def refused(*flags, status):
        _, errors = optiq("convert", model, "-o", tmp / "none", *flags, expect=status)
        assert not (tmp / "none").exists()
        return errors

    errors = refused("--device", "mlx", "--max-ram", "400MB", status=2)
    assert "--max-ram" in errors and "--device" in errors, errors
    errors = refused("--method", "uniform", "--device", "cpu", status=2)
    assert "--device" in errors and "--method" in errors, errors
    assert "cuda:N" in refused("--device", "gpu", status=2)


if __name__ == "__main__":
    with scratch() as folder:
        tmp = Path(folder)
        small = tmp / "small"
        write_small_model(small)
        devices_measure_alike(small, tmp, "--sensitivity", "exact", "--rounding", "nearest", bound=0.02)
        devices_measure_alike(small, tmp, "--sensitivity", "fast", bound=0.05)
        what_only_the_cpu_does_is_refused(small, tmp)
