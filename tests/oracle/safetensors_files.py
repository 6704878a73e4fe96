"""Our safetensors reader and writer, judged by PyPI's safetensors and by MLX.

1. Broken and odd files: the same verdict, but for those that we refuse on
   purpose. Mutations of a good file: whatever we accept, the judge accepts.
2. Files of safetensors.numpy and mlx.core: the same names, dtypes, shapes, bytes.
3. Files that we write: the judge reads the same values back.
"""

import hashlib
import random
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save_file

from _support import DRIVERS, MODEL, run, scratch

DRIVER = DRIVERS / "safetensors_driver"
N_MUTATIONS = 2000
SEED = 1

MLX_NAMES = {
    mx.bool_: "BOOL", mx.uint8: "U8", mx.int8: "I8", mx.int16: "I16",
    mx.uint16: "U16", mx.float16: "F16", mx.bfloat16: "BF16", mx.int32: "I32",
    mx.uint32: "U32", mx.float32: "F32", mx.int64: "I64", mx.uint64: "U64",
}


def judge_accepts(path):
    """What the reference's parser of headers says (it decodes no values)."""
    try:
        deserialize(path.read_bytes())
        return True
    except SafetensorError:
        return False


def read_with_driver(paths):
    """Per path: None when refused, else {name: (dtype, shape, digest)}."""
    lines = iter(run(DRIVER, "read", *paths)[0].splitlines())
    results = []
    for line in lines:
        verdict, detail = line.split(" ", 1)
        if verdict == "reject":
            results.append(None)
            continue
        tensors = {}
        for _ in range(int(detail)):
            digest, dtype, shape, name = next(lines).split(" ")
            shape = tuple(int(d) for d in shape.split(",")[1:])
            tensors[bytes.fromhex(name[1:]).decode()] = (dtype, shape, digest)
        results.append(tensors)
    assert len(results) == len(paths)
    return results


def check_handcrafted(folder):
    listing = run(DRIVER, "broken", folder)[0].splitlines()
    cases = [line.rsplit(" ", 1) for line in listing]
    ours = read_with_driver([folder / name for name, _ in cases])
    counts = {}
    wrong = []
    for (name, expected), tensors in zip(cases, ours):
        counts[expected] = counts.get(expected, 0) + 1
        verdicts = judge_accepts(folder / name), tensors is not None
        wanted = {"rejects": (False, False), "we-are-stricter": (True, False),
                  "accepts": (True, True)}[expected]
        if verdicts != wanted:
            wrong.append((name, expected, verdicts))
    assert not wrong, f"(name, expected, (judge accepts, we accept)): {wrong}"
    assert counts["rejects"] >= 60, counts
    print("handcrafted:", counts)


def frame(header, n_data=0):
    return len(header).to_bytes(8, "little") + header + bytes(n_data)


def large_broken_files():
    """Headers of megabytes that must not cost many times their size."""
    entry = '"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    tiny = "".join(entry % i for i in range(300_000))
    tensor = b'{"t":{"dtype":"U8","shape":%s,"data_offsets":[0,1]}}'
    yield "large_empty_lists", frame(b'{"t":[' + b"[]," * 3_000_000 + b"[]]}")
    yield "large_nested_objects", frame(b'{"t":[' + b'{"a":{}},' * 1_000_000 + b"{}]}")
    yield "large_many_tensors", frame(("{" + tiny + '"x":1}').encode())
    yield "large_shape", frame(tensor % (b"[" + b"1," * 4_000_000 + b"1,1.5]"), 1)
    yield "large_unknown_field", frame(
        b'{"t":{"a":[' + b"0," * 4_000_000 + b'0],"dtype":"U8","shape":[1]}}', 1)
    yield "large_metadata", frame(
        ('{"__metadata__":{' + ",".join(f'"{i}":"v"' for i in range(500_000)) + ',"x":1}}').encode())
    yield "large_name", frame(b'{"' + b"n" * 8_000_000 + b'":{"dtype":"F33"}}')
    yield "large_unfinished_text", frame(b'{"t":"' + b"x" * 30_000_000)
    yield "large_escaped_text", frame(b'{"t":"' + b"\\\\," * 10_000_000)
    yield "large_number", frame(b'{"t":1' + b"1" * 30_000_000)
    yield "large_spaces", frame(b"{" + b" " * 20_000_000 + b'"t"')
    yield "large_padding", frame(b"{" + b" " * 20_000_000)


def check_memory(folder):
    """No broken file ends the process, or costs more than twice its bytes and
    64 MB."""
    listing = run(DRIVER, "broken", folder)[0].splitlines()
    broken = {name for name, expected in (line.rsplit(" ", 1) for line in listing)
              if expected != "accepts"}
    for name, content in large_broken_files():
        (folder / name).write_bytes(content)
        assert not judge_accepts(folder / name), name
        broken.add(name)
    assert len(broken) >= 40
    peaks = []
    for name in sorted(broken):
        verdict, *_, peak = run(DRIVER, "verdict", folder / name)[0].split()
        assert verdict == "reject", name
        limit = 2 * (folder / name).stat().st_size + 64_000_000
        peaks.append((int(peak) / limit, name, int(peak)))
    share, name, peak = max(peaks)
    print(f"memory of {len(broken)} broken files: the worst is {name}, {peak / 1e6:.0f} MB, "
          f"{share:.0%} of what is allowed")
    assert share <= 1


def mutate(good, rng):
    """One edit inside the header; the length field follows when it can."""
    length = int.from_bytes(good[:8], "little")
    header, data = bytearray(good[8 : 8 + length]), good[8 + length :]
    at = rng.randrange(len(header))
    kind = rng.randrange(4)
    if kind == 0:
        header[at] = rng.randrange(256)
    elif kind == 1:
        del header[at : at + rng.randrange(1, 12)]
    elif kind == 2:
        header[at:at] = header[at : at + rng.randrange(1, 40)]
    else:
        digits = [i for i, c in enumerate(header) if chr(c).isdigit()]
        header[rng.choice(digits)] = ord(rng.choice("0123456789-."))
    return len(header).to_bytes(8, "little") + bytes(header) + data


def check_mutations(folder):
    save_file(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3),
         "b": np.arange(5, dtype=np.uint8),
         "c": np.arange(4, dtype=np.int64)},
        folder / "good", metadata={"format": "np", "x": "y"})
    good = (folder / "good").read_bytes()
    rng = random.Random(SEED)
    paths = []
    for i in range(N_MUTATIONS):
        paths.append(folder / f"mutation{i}")
        paths[-1].write_bytes(mutate(good, rng))
    ours = read_with_driver(paths)
    n_both = n_stricter = 0
    for path, tensors in zip(paths, ours):
        judge = judge_accepts(path)
        assert judge or tensors is None, f"{path.read_bytes()!r}: only we accept it"
        n_both += judge and tensors is not None
        n_stricter += judge and tensors is None
    # What is left for the stricter reader are dtypes and duplicates.
    assert n_both > N_MUTATIONS / 20 and n_stricter < n_both / 4, (n_both, n_stricter)
    print(f"mutations: {N_MUTATIONS}, both accept {n_both}, only the judge {n_stricter}")


def numpy_tensors():
    rng = np.random.default_rng(SEED)
    tensors = {}
    for dtype in ("bool", "u1", "i1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8"):
        for shape in ((), (0,), (1,), (3, 5), (2, 0, 3), (7, 1, 2)):
            values = rng.integers(0, 2, shape) if dtype == "bool" else rng.integers(0, 100, shape)
            name = f"{dtype} é {'x'.join(map(str, shape))}"
            tensors[name] = np.asarray(values).astype(dtype)
    return tensors


def as_bytes(array):
    return np.array(array.reshape(array.size).view(mx.uint8)).tobytes()


def check_foreign(folder):
    tensors = numpy_tensors()
    save_file(tensors, folder / "numpy")
    save_file(tensors, folder / "numpy_meta", metadata={"format": "np"})
    names = {"bool": "BOOL", **{f"{k}{n}": f"{k.upper()}{8 * n}" for k in "iuf" for n in (1, 2, 4, 8)}}
    expected = {
        name: (names[t.dtype.str[1:] if t.dtype != bool else "bool"], t.shape,
               hashlib.sha256(t.tobytes()).hexdigest())
        for name, t in tensors.items()
    }
    for path in ("numpy", "numpy_meta"):
        assert read_with_driver([folder / path]) == [expected], path

    for count in range(1, 9):  # headers of many lengths: MLX does not pad them
        arrays = {
            f"{'n' * count}{i}": mx.random.normal((3, 2 * i)).astype(mx.bfloat16 if i % 2 else mx.float32)
            for i in range(1, 6)
        }
        path = folder / f"mlx{count}.safetensors"
        mx.save_safetensors(str(path), arrays, {"format": "mlx"} if count % 2 else None)
        want = {
            name: (MLX_NAMES[a.dtype], tuple(a.shape), hashlib.sha256(as_bytes(a)).hexdigest())
            for name, a in arrays.items()
        }
        assert read_with_driver([path]) == [want], path
    print("foreign: 2 files of safetensors.numpy, 8 of mlx.core")


def check_written(folder):
    save_file(numpy_tensors(), folder / "source", metadata={"k": "v"})
    sources = [folder / "source", *sorted(MODEL.glob("model*.safetensors"))]
    for source in sources:
        first, second = folder / "first.safetensors", folder / "second.safetensors"
        for copy in (first, second):
            copy.unlink(missing_ok=True)
            run(DRIVER, "copy", source, copy)
        assert first.read_bytes() == second.read_bytes(), "two writes differ"
        assert int.from_bytes(first.read_bytes()[:8], "little") % 8 == 0
        want, got = mx.load(str(source), format="safetensors"), mx.load(str(first))
        assert want.keys() == got.keys()
        for name in want:
            assert want[name].dtype == got[name].dtype, name
            assert as_bytes(want[name]) == as_bytes(got[name]), name
        assert judge_accepts(first)
    copied = folder / "copied"
    run(DRIVER, "copy", folder / "source", copied)
    read = load(copied.read_bytes())
    for name, tensor in numpy_tensors().items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape, name
        assert np.array_equal(read[name], tensor), name
    print(f"written: {len(sources)} files")


def main():
    for check in (check_handcrafted, check_memory, check_mutations, check_foreign, check_written):
        with scratch() as folder:
            check(Path(folder))


main()
