"""What convert writes of a family, by stock mlx-lm and by us."""

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from _families import BOUND, make_model
from _family_cases import VOCABULARY
from _support import DRIVERS, mean_kl, optiq, run


def plain_cases(cases):
    """The first case of each model_type."""
    seen = set()
    for name, module, config, _ in cases:
        if config["model_type"] not in seen:
            seen.add(config["model_type"])
            yield name, module, config


def wide(config):
    """Widths that groups of 64 divide."""
    if "text_config" in config:
        return dict(config, text_config=wide(config["text_config"]))
    return dict(config, hidden_size=192, intermediate_size=192)  # 6 heads of 32


def write_tokenizer(folder):
    """A byte-level tokenizer of the vocabulary's size, to calibrate with."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["the quick brown fox and the lazy dog " * 3],
        trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(folder / "tokenizer.json"))


def compare_converted(name, module, config, folder, *options):
    """Mean KL of our logits on the converted directory to mlx-lm's."""
    mx.random.seed(8)
    make_model(module, wide(config), None, folder / "model")
    write_tokenizer(folder / "model")
    optiq("convert", folder / "model", "-o", folder / "out", "--group-size", "64", *options,
          env={"OPTIQ_CACHE_DIR": str(folder / "cache")})
    model, written = load_model(folder / "out")
    widths = {v["bits"] for v in written["quantization"].values() if isinstance(v, dict)}
    ids = np.random.default_rng(8).integers(0, VOCABULARY, 200, dtype=np.int32)
    save_file({"ids": ids}, folder / "ids.safetensors")
    run(DRIVERS / "logits_driver", folder / "out", folder / "ids.safetensors", 64, "exact",
        folder / "logits.safetensors")
    reference = np.array(model(mx.array(ids)[None])[0].astype(mx.float32))
    kl = mean_kl(reference, load_file(folder / "logits.safetensors")["ids"])
    print(f"{name}, {' '.join(options)}: {sorted(widths)} bits, mean KL {kl:.3g}")
    assert kl <= BOUND, (name, kl)
    return widths
