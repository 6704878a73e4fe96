"""Adapters of optiq serve, by the real openai client and by plain HTTP: named, mounted, broken, unmounted."""

import json
import shutil
from pathlib import Path

import openai
from _adapters import QUESTIONS, write_adapter
from _server import serving_model
from _support import MODEL, optiq, scratch

NAME = MODEL.name
FIELDS = {
    "messages": [{"role": "user", "content": QUESTIONS[0]}], "temperature": 0, "max_tokens": 8, "logprobs": True}  # fmt: skip


def said(answer):
    return [(token.token, token.logprob) for token in answer.choices[0].logprobs.content]


def the_openai_client_names_adapters(client, folder):
    chat = client.chat.completions.create
    plain = chat(model=NAME, **FIELDS)
    by_name = chat(model=f"{NAME}:one", **FIELDS)
    by_field = chat(model=NAME, extra_body={"adapter": "one"}, **FIELDS)
    by_list = chat(model=NAME, extra_body={"adapters": [{"id": "one", "weight": 1}]}, **FIELDS)
    assert said(by_name) == said(by_field) == said(by_list) != said(plain)
    assert by_name.model == by_field.model == f"{NAME}:one" and plain.model == NAME
    chunks = list(chat(model=f"{NAME}:one", stream=True, **FIELDS))
    assert {chunk.model for chunk in chunks} == {f"{NAME}:one"}
    text = client.completions.create(model=f"{NAME}:one", prompt="Anna has", temperature=0, max_tokens=4)
    assert text.model == f"{NAME}:one"
    # A sum is what merging makes of its parts, up to the rounding of B to bfloat16.
    both = chat(model=f"{NAME}:one*0.5+two", **FIELDS)
    assert said(both) not in (said(by_name), said(plain))
    assert [model.id for model in client.models.list()] == [NAME, f"{NAME}:one", f"{NAME}:two"]
    assert client.models.retrieve(f"{NAME}:two").id == f"{NAME}:two"
    for model, extra in ((f"{NAME}:three", {}), (NAME, {"adapter": "three"})):
        try:
            chat(model=model, extra_body=extra, **FIELDS)
        except openai.NotFoundError as error:
            assert "'three'" in str(error) and "one, two" in str(error), error
        else:
            raise AssertionError("found what is not there")
    try:
        chat(model=f"{NAME}:one", extra_body={"adapter": "two"}, **FIELDS)
    except openai.BadRequestError as error:
        assert error.param == "adapter", error
    else:
        raise AssertionError("took adapters in two places")


def the_command_line_says_the_same(client, folder):
    """optiq generate with the adapter, and optiq chat with the server's."""
    fields = {**FIELDS, "max_tokens": 24}
    answer = client.chat.completions.create(model=f"{NAME}:one", **fields).choices[0].message.content
    out, _ = optiq(
        "generate", MODEL, "-p", QUESTIONS[0], "--temp", "0", "--max-tokens", "24", "--adapter", folder / "one")
    assert out.rstrip("\n") == answer.rstrip("\n"), (out, answer)
    url = str(client.base_url).removesuffix("/v1/")
    talk = ("--temp", "0", "--max-tokens", "24")
    there, _ = optiq("chat", url, "--adapter", "one", *talk, stdin=QUESTIONS[0])
    here, _ = optiq("chat", MODEL, "--adapter", folder / "one", *talk, stdin=QUESTIONS[0])
    assert there == here == answer + "\n", (there, here, answer)
    _, err = optiq("chat", url, "--adapter", "three", stdin="x", expect=3)
    assert "answers 404" in err and "'three'" in err and "one, two" in err, err
    both, _ = optiq("chat", url, "--adapter", "one", "--adapter", "two", *talk, stdin=QUESTIONS[0])
    assert both != there


def break_adapters(folder):
    """{folder: what the answer must name}"""
    def copy(name):
        shutil.copytree(folder / "one", folder / name)
        return folder / name

    def change(name, **settings):
        file = copy(name) / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    tensors = copy("short") / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    (copy("header") / "adapter_model.safetensors").write_bytes(b"\xff" * 64)
    for name in ("gone", "gone_mlx"):
        copy(name)
    for file in ("adapter_model.safetensors", "adapters.safetensors"):
        (folder / "gone" / file).unlink()
    (folder / "gone_mlx" / "adapter_config.json").unlink()
    (copy("settings") / "adapter_config.json").write_text("[]")
    change("dora", use_dora=True)
    change("rank", rank_pattern={}, r=64)
    change("type", peft_type="IA3")
    (folder / "empty").mkdir()
    return {
        "short": "adapter_model.safetensors", "header": "adapter_model.safetensors", "gone": "adapter_model.safetensors",
        "gone_mlx": "adapter_config.json", "settings": "adapter_config.json", "dora": "use_dora", "rank": "rank",
        "type": "IA3", "empty": "adapter_config.json",
    }  # fmt: skip


def broken_folders_get_a_sentence(server, folder):
    for name, named in break_adapters(folder).items():
        status, _, body = server.request("/v1/adapters", {"path": name})
        assert 400 <= status < 500, (name, status, body)
        message = body["error"]["message"]
        assert str(folder / name) in message and named in message, (name, message)
        assert body["error"]["param"] == "path" and body["error"]["code"] == "invalid_adapter", body
    (folder / "out").symlink_to("/etc")
    for path in ("..", "../..", "/etc", "out", "one/../..", "\\..", "%2e%2e"):
        status, _, body = server.request("/v1/adapters", {"path": path})
        assert status in (400, 403) and body["error"]["param"] == "path", (path, status, body)
    assert server.is_alive()
    assert [item["id"] for item in server.request("/v1/adapters")[2]["data"]] == ["one", "two"]


def wants_its_key(folder):
    with serving_model("--adapter", folder / "one", "--adapters-root", folder, "--api-key", "k") as server:
        for method, path, body in (("GET", "/v1/adapters", None), ("GET", "/v1/adapters/one", None),
                                   ("POST", "/v1/adapters", {"path": "two"}), ("DELETE", "/v1/adapters/one", None)):  # fmt: skip
            status, _, answer = server.request(path, body, method=method)
            assert status == 401, (method, path, answer)
            status, _, answer = server.request(path, body, {"x-api-key": "k"}, method)
            assert status == 200, (method, path, answer)


def does_not_start_with_what_is_none(folder):
    for status, says, *flags in (
        (3, "adapter_config.json", "--adapter", folder / "empty"),
        (2, "'one' is mounted", "--adapter", folder / "one", "--adapter", f"one={folder / 'two'}"),
        (2, "'a+b'", "--adapter", f"a+b={folder / 'one'}"),
        (2, "--adapters-root", "--adapters-root", folder / "none"),
        (7, "expected room", "--adapter", folder / "one", "--adapter-memory", "1kB"),
        (2, "--adapter is needed with --adapter-memory", "--adapter-memory", "1GB"),
    ):
        _, err = optiq("serve", MODEL, "--port", "0", *flags, expect=status)
        assert says in err, (flags, err)


def main():
    with scratch() as scratch_folder:
        folder = Path(scratch_folder).resolve()
        for seed, name in enumerate(("one", "two"), 1):
            write_adapter(folder / name, seed)
        flags = ("--adapter", folder / "one", "--adapter", f"two={folder / 'two'}", "--adapters-root", folder)
        with serving_model(*flags) as server:
            client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=300)
            the_openai_client_names_adapters(client, folder)
            the_command_line_says_the_same(client, folder)
            broken_folders_get_a_sentence(server, folder)
        wants_its_key(folder)
        does_not_start_with_what_is_none(folder)


if __name__ == "__main__":
    main()
