"""Our GGUF reader, judged by PyPI's gguf.

1. Handcrafted broken files, and mutations of a good file: whatever the judge
   refuses, we refuse; no signal; memory at most 2 x file + 64 MB.
2. Random files of each type, made with the judge's writer (and quantizer where
   it has one): the same float32 values, bit for bit; and the affine triples
   stand for them.
3. The values of every tensor of a real model.
"""

import random
import signal
import warnings
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES

from _gguf import DRIVER, GGUF, compare, finish
from _support import run, scratch

SEED = 1
N_MUTATIONS = 1500
JUDGE_SECONDS = 1.0  # it counts to 2^61 where a file asks for that
RSS_SLACK = 64 << 20

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K",
         "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
# Offsets of the float16 numbers in a block of a type without a quantizer.
HALVES = {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "Q2_K": [80, 82], "Q3_K": [108], "IQ4_NL": [0],
          "IQ4_XS": [0], "MXFP4": []}  # of which every exponent is finite but the last


class TooSlow(Exception):
    pass


def judge_accepts(path):
    def stop(*_):
        raise TooSlow

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, JUDGE_SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):  # of offsets that wrap
            GGUFReader(path)
        return True
    except Exception:  # whatever it stumbles over
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def read_with_driver(paths):
    """Per path whether we accept; checks that nothing crashed or ate memory."""
    lines = run(DRIVER, "read", *paths)[0].splitlines()
    assert len(lines) == len(paths)
    peak = 0
    for path, line in zip(paths, lines):
        words = line.split()
        assert words[0] in ("accept", "reject"), f"{path.name}: {line}"
        rss = int(words[-1])
        assert rss <= 2 * path.stat().st_size + RSS_SLACK, f"{path.name}: {rss} bytes resident"
        peak = max(peak, rss)
    return [line.startswith("accept") for line in lines], peak


def check_handcrafted(folder):
    cases = [line.split() for line in run(DRIVER, "broken", folder)[0].splitlines()]
    ours, peak = read_with_driver([folder / name for name, _ in cases])
    wrong = []
    for (name, expected), accepted in zip(cases, ours):
        judge = judge_accepts(folder / name)
        if accepted or judge != (expected == "we-are-stricter"):
            wrong.append((name, expected, judge, accepted))
    assert not wrong, f"(name, expected, judge accepts, we accept): {wrong}"
    n_rejects = sum(expected == "rejects" for _, expected in cases)
    assert n_rejects >= 40, n_rejects
    print(f"handcrafted: {len(cases)}, of which the judge refuses {n_rejects}; peak {peak} bytes")


def write_small(path):
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "déf"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.5, 2.0])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    rng = np.random.default_rng(SEED)
    for i, name in enumerate(("F32", "Q4_0", "Q8_0")):
        values = rng.standard_normal((3, 64)).astype(np.float32)
        data = quants.quantize(values, Type[name])
        writer.add_tensor(f"t{i}", data, raw_dtype=Type[name])
    finish(writer)


def mutate(good, header, rng):
    out = bytearray(good)
    at = rng.randrange(header)
    kind = rng.randrange(4)
    if kind == 0:
        out[at] = rng.randrange(256)
    elif kind == 1:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del out[at : at + rng.randrange(1, 12)]
    else:
        out[at : at + 8] = rng.choice([0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]).to_bytes(8, "little")
    return bytes(out)


def check_mutations(folder):
    good = folder / "good.gguf"
    write_small(good)
    content = good.read_bytes()
    header = GGUFReader(good).data_offset
    rng = random.Random(SEED)
    paths = []
    for i in range(N_MUTATIONS):
        paths.append(folder / f"mutation{i}.gguf")
        paths[-1].write_bytes(mutate(content, header, rng))
    ours, _ = read_with_driver([good, *paths])
    assert ours[0]
    n_both = 0
    for path, accepted in zip(paths, ours[1:]):
        if accepted:
            assert judge_accepts(path), f"{path.read_bytes()!r}: only we accept it"
            n_both += 1
    assert N_MUTATIONS / 20 < n_both < N_MUTATIONS * 3 / 4, n_both
    print(f"mutations: {N_MUTATIONS}, both accept {n_both}")


def random_data(name, shape, rng):
    """Encoded tensor of a type, any codes, finite scales."""
    kind = Type[name]
    if name in HALVES:
        block, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (int(np.prod(shape)) // block, size), dtype=np.uint8)
        for at in HALVES[name]:
            scales = (rng.standard_normal(len(blocks)) * 0.01).astype(np.float16)
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        return blocks.reshape(*shape[:-1], -1)
    values = rng.standard_normal(shape).astype(np.float32) * np.float32(10.0) ** rng.integers(-6, 3, shape)
    values.reshape(-1)[:: 7] = 0
    values.reshape(-1, shape[-1])[0] = 0  # blocks without a scale
    return quants.quantize(values.astype(np.float32), kind)


def check_types(folder):
    rng = np.random.default_rng(SEED)
    n = 0
    for alignment in (32, 8, 128):
        path = folder / f"types{alignment}.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_custom_alignment(alignment)
        for name in TYPES:
            for i, shape in enumerate([(256,), (1, 512), (7, 256), (2, 3, 256), (33, 768)]):
                writer.add_tensor(f"{name}.{i}", random_data(name, shape, rng), raw_dtype=Type[name])
        finish(writer)
        n += compare(path, folder)
    print(f"types: {n} tensors")


def check_split(folder):
    """A model that the judge's writer divides, opened by each of its parts."""
    rng = np.random.default_rng(SEED)
    writer = GGUFWriter(folder / "split.gguf", "llama", split_max_tensors=3, small_first_shard=True)
    for i, name in enumerate(TYPES):
        writer.add_tensor(f"t{i}", random_data(name, (2, 256), rng), raw_dtype=Type[name])
    finish(writer)
    parts = sorted(folder.glob("split-*-of-*.gguf"))
    assert len(parts) >= 4, parts
    for part in parts:
        assert compare(part, folder, parts) == len(TYPES)
    print(f"split: {len(parts)} parts")


def check_every_half(folder):
    """All float16 numbers, through F16 and through the scales of Q4_0."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    path = folder / "halves.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("f16", halves)
    small = halves[np.abs(halves.astype(np.float32)) < 8000]  # 8 * d must be a float16
    blocks = np.zeros((len(small), 18), dtype=np.uint8)
    blocks[:, :2] = small.view(np.uint8).reshape(-1, 2)
    blocks[:, 2:] = np.arange(16, dtype=np.uint8) * 17
    writer.add_tensor("q4_0", blocks, raw_dtype=Type.Q4_0)
    finish(writer)
    compare(path, folder)
    print(f"halves: {len(halves)}")


def check_real(folder):
    """Every tensor of a real model (gguf_values_slow.py: of all of them)."""
    model = GGUF / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if model.exists():
        print(f"{model.name}: {compare(model, folder)} tensors")
    else:
        print("no real models in OPTIQ_GGUF_DIR: run ./scripts/setup --developer")


def main():
    for check in (check_handcrafted, check_mutations, check_types, check_split, check_every_half, check_real):
        with scratch() as folder:
            check(Path(folder))


main()
