"""Adapters through stock mlx-lm, both ways, on tiny-qwen3.5 in float32.

What we write and train, mlx-lm loads; what mlx-lm's own LoRA layers save, we load: the
logits on the full-precision base are the same.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, MODEL, float32_copy, run, scratch
from _trained_adapter import train_adapter
from tokenizers import Tokenizer

N_TOKENS = 100
BOUND = 1e-3  # largest difference of a logit
LORA = {"rank": 4, "scale": 10.0, "dropout": 0.0}


def tokens():
    text = (MODEL / "eval_arithmetic.jsonl").read_text()
    ids = Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(text).ids
    return np.array(ids[:N_TOKENS], dtype=np.int32)


def mlx_logits(model, ids):
    return np.array(model(mx.array(ids)[None])[0].astype(mx.float32))


def our_logits(folder, adapter, ids):
    save_file({"ids": ids}, folder / "ids.safetensors")
    out = folder / f"logits-{adapter.name}.safetensors"
    run(DRIVERS / "adapter_driver", "logits", MODEL, adapter, folder / "ids.safetensors", out)
    return load_file(out)["logits"]


def compare(what, plain, theirs, ours):
    difference = np.max(np.abs(theirs - ours))
    moved = np.max(np.abs(theirs - plain))
    print(f"{what}: largest difference {difference:.2g}, the adapter moves logits by {moved:.2g}")
    assert moved > 0.5, "the adapter does nothing"
    assert difference <= BOUND


def write_as_mlx_lm(model, adapter):
    """What mlx-lm's trainer saves, at random values."""
    linear_to_lora_layers(model, 4, LORA)
    mx.random.seed(7)
    adapter.mkdir()
    tensors = {
        name: 0.05 * mx.random.normal(value.shape)
        for name, value in tree_flatten(model.parameters())
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b")
        and "embed_tokens" not in name
    }
    mx.save_safetensors(str(adapter / "adapters.safetensors"), tensors)
    config = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": LORA}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    model.load_weights(list(tensors.items()), strict=False)


def main():
    ids = tokens()
    with scratch() as folder:
        folder = Path(folder)
        base = float32_copy(folder / "f32")
        plain = mlx_logits(load_model(base)[0], ids)

        ours = folder / "ours"
        run(DRIVERS / "adapter_driver", "write", MODEL, ours, 1)
        model = load_adapters(load_model(base)[0], str(ours))
        compare("ours in mlx-lm", plain, mlx_logits(model, ids), our_logits(folder, ours, ids))

        trained = train_adapter(folder)
        ranks = set(json.loads((trained / "adapter_config.json").read_text())["rank_pattern"].values())
        assert ranks == {2}, ranks  # of 4 bits; 8 bits have 4
        model = load_adapters(load_model(base)[0], str(trained))
        compare("trained, in mlx-lm", plain, mlx_logits(model, ids), our_logits(folder, trained, ids))

        theirs = folder / "theirs"
        model = load_model(base)[0]
        write_as_mlx_lm(model, theirs)
        compare("mlx-lm's in ours", plain, mlx_logits(model, ids), our_logits(folder, theirs, ids))


main()
