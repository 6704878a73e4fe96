"""Every family's float32 forward against stock mlx-lm's, at random weights.

mlx-lm makes and saves the model, so names and shapes are its own. We run the
prompt whole, in chunks, and three sequences token by token in one batch.
"""

import sys
from pathlib import Path

from _families import BOUND, compare, stepwise_logits
from _family_cases import BASE, all_cases
from _support import scratch

# Past its positions mlx-lm turns a chunk by the chunk's end; token by token it
# is what we do in every chunk.
DYNAMIC = dict(
    BASE, model_type="llama", hidden_act="silu", max_position_embeddings=100,
    rope_scaling=dict(type="dynamic", factor=4.0))


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    worst = {}
    for name, *case in all_cases():
        if wanted in name:
            with scratch() as folder:
                worst[name] = compare(name, *case, Path(folder))
    name = "llama, dynamic NTK past its positions"
    if wanted in name:
        with scratch() as folder:
            worst[name] = compare(name, "llama", DYNAMIC, None, Path(folder), stepwise_logits)
    bad = {name: kl for name, kl in worst.items() if not kl <= BOUND}
    assert worst and not bad, f"mean KL above {BOUND}: {bad}"
    print("| family | variants | worst mean KL |")
    print("|---|---|---|")
    families = sorted({name.split(",")[0].split(" ")[0] for name in worst})
    for family in families:
        kls = [kl for name, kl in worst.items() if name.split(",")[0].split(" ")[0] == family]
        print(f"| {family} | {len(kls)} | {max(kls):.1e} |")


main()
