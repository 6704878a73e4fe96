"""Writes two adapters in PEFT's format for a model's attention: write_adapters.py MODEL FOLDER

Folder `zero` changes nothing (B is zero, as before training), `noise` a lot.
"""

import array
import json
import pathlib
import random
import struct
import sys

RANK = 2


def shapes_of(model):
    """Shapes of the model's q_proj weights by the paths of their modules."""
    shapes = {}
    for path in model.glob("model*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, entry in header.items():
            if name.endswith(".q_proj.weight") and not name.startswith("mtp."):
                shapes[name.removesuffix(".weight")] = entry["shape"]
    return shapes


def write_adapter(folder, shapes, deviation):
    header, data = {}, array.array("f")
    for module, (n_out, n_in) in shapes.items():
        for part, shape, spread in (("lora_A", [RANK, n_in], 0.3), ("lora_B", [n_out, RANK], deviation)):
            begin = 4 * len(data)
            data.extend(random.gauss(0, spread) for _ in range(shape[0] * shape[1]))
            header[f"base_model.model.{module}.{part}.weight"] = {
                "dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(data)]}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data.tobytes())
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
              "target_modules": ["q_proj"], "base_model_name_or_path": "tiny-qwen3.5"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main():
    model, folder = map(pathlib.Path, sys.argv[1:])
    random.seed(1)
    for name, deviation in (("zero", 0.0), ("noise", 1.0)):
        write_adapter(folder / name, shapes_of(model), deviation)


if __name__ == "__main__":
    main()
