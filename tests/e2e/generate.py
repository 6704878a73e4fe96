"""optiq generate as a user runs it, on tiny-qwen3.5."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _support import BIN, MODEL, optiq, scratch

ROWS = [json.loads(r) for r in (MODEL / "eval_arithmetic.jsonl").open()]
QUESTION, ANSWER = ROWS[0]["question"], ROWS[0]["answer"]


def answers_a_question():
    out, _ = optiq("generate", MODEL, "-p", QUESTION, "--temp", "0")
    assert out.strip() == ANSWER, out
    piped, _ = optiq("generate", "-m", MODEL, "--temp", "0", stdin=QUESTION)
    assert piped == out
    exact, _ = optiq(
        "generate", MODEL, "-p", QUESTION, "--temp", "0", "--compute", "exact",
        "--threads", "1",
    )
    assert exact == out


def prints_json():
    out, _ = optiq("generate", MODEL, "-p", QUESTION, "--temp", "0", "--json")
    result = json.loads(out)
    assert result["text"] == ANSWER
    assert result["finish_reason"] == "stop"
    assert result["completion_tokens"] == len(result["tokens"]) > 5
    assert result["compute"] == "fast" and result["simd"]
    assert result["decode_tokens_per_second"] > 0
    short, _ = optiq(
        "generate", MODEL, "-p", QUESTION, "--temp", "0", "--json",
        "--max-tokens", "3",
    )
    assert json.loads(short)["finish_reason"] == "length"
    assert json.loads(short)["tokens"] == result["tokens"][:3]


def takes_sampling_from_the_model():
    out, _ = optiq("generate", MODEL, "-p", QUESTION, "--seed", "5", "--json")
    result = json.loads(out)
    config = json.loads((MODEL / "generation_config.json").read_text())
    assert abs(result["temperature"] - config["temperature"]) < 1e-6
    assert abs(result["top_p"] - config["top_p"]) < 1e-6
    assert result["top_k"] == config["top_k"]
    again, _ = optiq("generate", MODEL, "-p", QUESTION, "--seed", "5", "--json")
    assert json.loads(again)["tokens"] == result["tokens"]


def raw_skips_the_template():
    out, _ = optiq(
        "generate", MODEL, "--raw", "-p", "<|im_start|>user\n" + QUESTION +
        "<|im_end|>\n<|im_start|>assistant\n", "--temp", "0",
    )
    assert out.strip() == ANSWER, out


def interrupt_keeps_the_text():
    child = subprocess.Popen(
        [BIN, "generate", str(MODEL), "--raw", "-p", "In the beginning",
         "--temp", "1", "--top-k", "0", "--top-p", "1", "--seed", "1",
         "--max-tokens", "4000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    first = child.stdout.read(20)
    child.send_signal(signal.SIGINT)
    rest, err = child.communicate(timeout=60)
    assert child.returncode == 130, (child.returncode, err)
    assert len(first) == 20 and rest.endswith(b"\n")
    assert b"interrupted" in err


def altered(folder, generation=None, positions=None):
    """The fixture model with another generation_config.json or fewer positions."""
    shutil.copytree(MODEL, folder)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    if positions is not None:
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["max_position_embeddings"] = positions
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def answer(model, *flags):
    out, err = optiq("generate", model, "-p", QUESTION, "--json", *flags)
    return json.loads(out), err


def clamps_the_default_length():
    whole, _ = answer(MODEL, "--temp", "0")
    n = whole["prompt_tokens"]
    with scratch() as folder:
        model = altered(Path(folder) / "short", positions=n + 5)
        short, _ = answer(model, "--temp", "0")
        assert short["tokens"] == whole["tokens"][:5], short
        assert short["finish_reason"] == "length" and short["max_tokens"] == 5
        _, err = optiq("generate", model, "-p", QUESTION, "--max-tokens", "6", expect=2)
        assert f"{n} prompt tokens plus 6 new ones" in err and str(n + 5) in err, err


def honours_the_generation_config():
    plain, _ = answer(MODEL, "--temp", "0")
    ends = {"eos_token_id": json.loads((MODEL / "generation_config.json").read_text())["eos_token_id"]}
    with scratch() as folder:
        folder = Path(folder)
        # Greedy, as do_sample is absent; the penalties are the file's.
        asks = {**ends, "repetition_penalty": 9, "presence_penalty": 1.5, "frequency_penalty": 2, "temperature": 2}
        penalized, _ = answer(altered(folder / "penalties", asks))
        by_flags, _ = answer(
            MODEL, "--temp", "0", "--repetition-penalty", "9", "--presence-penalty", "1.5", "--frequency-penalty",
            "2")
        assert penalized["tokens"] == by_flags["tokens"] != plain["tokens"], (penalized, by_flags)
        off, _ = answer(
            folder / "penalties", "--repetition-penalty", "1", "--presence-penalty", "0", "--frequency-penalty", "0")
        assert off["tokens"] == plain["tokens"]

        length, _ = answer(altered(folder / "length", {**ends, "max_new_tokens": 3}))
        assert length["tokens"] == plain["tokens"][:3]
        words = plain["text"].split()
        stopped, _ = answer(altered(folder / "stop", {**ends, "stop_strings": [words[2]]}))
        assert stopped["finish_reason"] == "stop" and plain["text"].startswith(stopped["text"])
        assert stopped["text"].rstrip().endswith(words[2]), stopped["text"]

        noted, err = answer(altered(folder / "noted", {**ends, "do_sample": True, "top_k": 1, "top_h": 0.5}))
        assert "note:" in err and "'top_h' is 0.5" in err, err
        assert noted["tokens"] == plain["tokens"] and noted["top_k"] == 1
        _, err = optiq("generate", altered(folder / "beams", {"num_beams": 4}), "-p", "x", expect=4)
        assert "'num_beams' is 4" in err, err


def refuses_bad_input():
    with scratch() as folder:
        folder = Path(folder)
        broken = folder / "broken"
        shutil.copytree(MODEL, broken)
        config = json.loads((broken / "config.json").read_text())
        cases = [
            (["generate"], 2, "no model"),
            (["generate", folder / "nothing", "-p", "x"], 3, "nothing"),
            (["generate", MODEL, "-p", "x", "--temp", "-1"], 2, "temperature"),
            (["generate", MODEL, "-p", "x", "--top-p", "2"], 2, "top_p"),
            (["generate", MODEL, "-p", "x", "--typical-p", "0"], 2, "typical_p"),
            (["generate", MODEL, "-p", "x", "--repetition-penalty", "0"], 2, "repetition_penalty"),
            (["generate", MODEL, "-p", "x", "--presence-penalty", "3"], 2, "presence_penalty"),
            (["generate", MODEL, "-p", "x", "--frequency-penalty", "-3"], 2, "frequency_penalty"),
            (["generate", MODEL, "-p", "x", "--max-tokens", "0"], 2, "max_tokens"),
            (["generate", MODEL, "-p", "x", "--max-tokens", "5000"], 2, "4096"),
            (["generate", MODEL, "-p", "x", "--compute", "slow"], 2, "compute"),
            (["generate", MODEL, "-p", "x", "--raw", "--system", "s"], 2, "--raw"),
            (["generate", MODEL, "-p", "x", "--nonsense"], 2, "nonsense"),
        ]
        for arguments, status, words in cases:
            out, err = optiq(*arguments, expect=status)
            assert words in err, (arguments, err)
            assert out == "" and err.count("\n") <= 4, (out, err)

        changes = [
            ({"model_type": "unheard_of"}, 4, "unheard_of"),
            ({"text_config": {**config["text_config"], "hidden_size": 257}}, 5, "257"),
            ({"text_config": {**config["text_config"], "num_hidden_layers": 0}}, 5, "num_hidden_layers"),
            ({"text_config": {**config["text_config"], "num_hidden_layers": 10**9}}, 5, "num_hidden_layers"),
            ({"text_config": {**config["text_config"], "head_dim": 1e30}}, 5, "head_dim"),
            ({"text_config": {**config["text_config"], "vocab_size": "many"}}, 5, "vocab_size"),
            ({"text_config": {**config["text_config"], "rope_parameters": {}}}, 5, "rope_theta"),
        ]
        for change, status, words in changes:
            (broken / "config.json").write_text(json.dumps({**config, **change}))
            _, err = optiq("generate", broken, "-p", "x", expect=status)
            assert words in err, (change, err)
        (broken / "config.json").write_text(json.dumps(config))

        shard = broken / "model-00002-of-00002.safetensors"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-1000])
        _, err = optiq("generate", broken, "-p", "x", expect=5)
        assert shard.name in err, err
        shard.unlink()
        _, err = optiq("generate", broken, "-p", "x", expect=3)
        assert shard.name in err, err


for check in [
    answers_a_question,
    prints_json,
    takes_sampling_from_the_model,
    raw_skips_the_template,
    interrupt_keeps_the_text,
    clamps_the_default_length,
    honours_the_generation_config,
    refuses_bad_input,
]:
    start = time.time()
    check()
    print(f"{check.__name__}: {time.time() - start:.1f} s")
