"""Shared by the scripts that compare families with mlx-lm: models at random
weights, and their logits by us and by mlx-lm."""

import importlib
import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models.cache import make_prompt_cache
from safetensors.numpy import load_file, save_file

from _family_cases import VOCABULARY
from _support import DRIVERS, mean_kl, run

LENGTHS = {"a": 300, "b": 131, "c": 64}
CHUNKS = [512, 100, 64, 0]  # 0: the batch
BOUND = 1e-6


def random_weight(name, weight, is_gain_minus_one):
    if weight.ndim == 1:
        mean = 0 if is_gain_minus_one or name.endswith("bias") else 1
        return mean + 0.2 * mx.random.normal(weight.shape)
    # Rows of unit variance: logits differ by several nats.
    return mx.random.normal(weight.shape) / np.sqrt(weight.shape[-1])


def make_model(module, config, quantization, folder):
    """A saved model directory and the model itself."""
    family = importlib.import_module(f"mlx_lm.models.{module}")
    model = family.Model(family.ModelArgs.from_dict(config))
    if config.get("tie_word_embeddings", False) and hasattr(model, "sanitize"):
        weights = dict(tree_flatten(model.parameters()))
        weights.pop("lm_head.weight", None)
        model.sanitize(weights)  # gemma3_text: a checkpoint without a head is tied
    is_gain_minus_one = module in ("gemma2", "gemma3_text")
    model.update(tree_map_with_path(
        lambda name, weight: random_weight(name, weight, is_gain_minus_one), model.parameters()))
    if quantization:
        nn.quantize(model, **quantization)
        config = dict(config, quantization=quantization)
    mx.eval(model.parameters())
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return model


def reference_logits(model, ids):
    return np.array(model(mx.array(ids)[None])[0].astype(mx.float32))


def stepwise_logits(model, ids):
    """What a model says that sees one token after another."""
    cache = make_prompt_cache(model)
    rows = [model(mx.array([[token]]), cache=cache)[0] for token in ids.tolist()]
    return np.array(mx.concatenate(rows).astype(mx.float32))


def compare(name, module, config, quantization, folder, reference_of=reference_logits):
    mx.random.seed(7)
    random = np.random.default_rng(7)
    ids = {k: random.integers(0, VOCABULARY, n, dtype=np.int32) for k, n in LENGTHS.items()}
    save_file(ids, folder / "ids.safetensors")
    model = make_model(module, config, quantization, folder / "model")
    reference = {k: reference_of(model, v) for k, v in ids.items()}
    spread = min(float(np.std(logits)) for logits in reference.values())
    assert spread > 0.3, f"{name}: logits of spread {spread} prove nothing"
    worst = 0.0
    for chunk in CHUNKS:
        out = folder / f"logits-{chunk}.safetensors"
        run(DRIVERS / "logits_driver", folder / "model", folder / "ids.safetensors", chunk, "exact", out)
        ours = load_file(out)
        worst = max(worst, *(mean_kl(reference[k], ours[k]) for k in ids))
    print(f"{name}: mean KL {worst:.3g}")
    return worst
