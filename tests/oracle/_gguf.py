"""Shared by the GGUF scripts: values of a file's tensors, by us and by PyPI's gguf."""

import os
from pathlib import Path

import numpy as np
from gguf import GGUFReader, quants

from _support import DRIVERS, run

DRIVER = DRIVERS / "gguf_driver"
GGUF = Path(os.environ["OPTIQ_GGUF_DIR"])


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(path, out, parts=()):
    """Every tensor of a file (of a model in parts: of all), by the driver and by
    the judge, who reads one file at a time."""
    names = run(DRIVER, "values", path, out)[0].splitlines()
    tensors = {t.name: t for part in parts or [path] for t in GGUFReader(part).tensors}
    assert sorted(names) == sorted(tensors)
    for index, name in enumerate(names):
        tensor = tensors[name]
        want = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(-1)
        got = np.fromfile(out / f"{index}.f32", dtype=np.float32)
        assert got.shape == want.shape, (name, got.shape, want.shape)
        assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), f"{path.name}: {name}"
        affine = out / f"{index}.affine"
        if affine.exists():
            assert np.array_equal(np.fromfile(affine, dtype=np.float32), want), f"{path.name}: {name}: affine"
            affine.unlink()
        (out / f"{index}.f32").unlink()
    return len(names)
