"""A directory with tokenizer.model and no tokenizer.json: generated from and
converted. And a prompt with a token that the
embeddings have no row for."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import sentencepiece
from mlx.utils import tree_flatten
from mlx_lm.models import llama

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _sentencepiece import LLAMA, train
from _support import optiq, scratch

PROMPT = "Anna gives  apples\nand caf\u00e9 to Tom"


def write_model(folder, rows, model, config):
    sizes = dict(
        model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5, vocab_size=rows, rope_theta=1e4,
        max_position_embeddings=512, tie_word_embeddings=True, hidden_act="silu")
    network = llama.Model(llama.ModelArgs.from_dict(sizes))
    mx.eval(network.parameters())
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))
    (folder / "config.json").write_text(json.dumps(sizes))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(model)


def generate(model, prompt, **options):
    return optiq("generate", model, "--raw", "-p", prompt, "--temp", "0", "--max-tokens", "4", "--json", **options)


def main():
    with scratch() as name:
        folder = Path(name)
        model = train(folder, dict(model_type="bpe", **LLAMA))
        judge = sentencepiece.SentencePieceProcessor(model_proto=model)
        config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>",
                  "unk_token": "<unk>"}
        write_model(folder / "model", judge.vocab_size(), model, config)
        result = json.loads(generate(folder / "model", PROMPT)[0])
        assert result["prompt_tokens"] == 1 + len(judge.encode(PROMPT)), result

        optiq("convert", folder / "model", "-o", folder / "out", "--method", "uniform", "--bits", "8")
        assert (folder / "out" / "tokenizer.model").read_bytes() == model
        converted = json.loads(generate(folder / "out", PROMPT)[0])
        assert converted["prompt_tokens"] == result["prompt_tokens"]

        # The last piece has no row: a sentence, and other texts still run.
        last = judge.id_to_piece(judge.vocab_size() - 1)
        write_model(folder / "short", judge.vocab_size() - 1, model, config)
        assert json.loads(generate(folder / "short", "Anna")[0])["prompt_tokens"] == 1 + len(judge.encode("Anna"))
        assert judge.encode("Anna" + last)[-1] == judge.vocab_size() - 1, last
        _, message = generate(folder / "short", "Anna" + last, expect=2)
        assert str(judge.vocab_size() - 1) in message and "rows" in message, message


main()
