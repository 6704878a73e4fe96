"""Our float32 forward against stock mlx-lm's, on tiny-qwen3.5.

mlx-lm runs a float32 copy of the checkpoint (same weights, nothing rounded
again); we run the bf16 checkpoint itself, in chunks of many sizes.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file

from _support import DRIVERS, MODEL, float32_copy, mean_kl, run, scratch
from tokenizers import Tokenizer

N_TOKENS = 1500
CHUNKS = [N_TOKENS, 1, 63, 64, 65, 512]
BOUND = 1e-6


def tokens():
    text = (MODEL / "eval_arithmetic.jsonl").read_text()
    ids = Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(text).ids
    return np.array(ids[:N_TOKENS], dtype=np.int32)


def main():
    with scratch() as folder:
        folder = Path(folder)
        model, _ = load_model(float32_copy(folder / "f32"))
        ids = tokens()
        reference = np.array(model(mx.array(ids)[None])[0].astype(mx.float32))
        save_file({"ids": ids}, folder / "ids.safetensors")
        for chunk in CHUNKS:
            out = folder / f"logits-{chunk}.safetensors"
            run(
                DRIVERS / "logits_driver",
                MODEL,
                folder / "ids.safetensors",
                chunk,
                "exact",
                out,
            )
            kl = mean_kl(reference, load_file(out)["ids"])
            print(f"{N_TOKENS} tokens in chunks of {chunk}: mean KL {kl:.3g}")
            assert kl <= BOUND, f"mean KL {kl} above {BOUND}"


main()
