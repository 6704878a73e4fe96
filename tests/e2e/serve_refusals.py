"""Every parameter at the ends of its range and beyond, against optiq serve: what is beyond is a 400 that names
the field, and the engine answers the next request."""

import json
import math

import openai
from _server import serving_model

VOCABULARY = 4096  # of tiny-qwen3.5
MESSAGES = [{"role": "user", "content": "Anna has 2 apples."}]
NOTHING = [None]  # always taken

# field: (taken, refused), for chat completions
FIELDS = {
    "temperature": ([0, 2], [-0.001, 2.001, "1", True, [], {}]),
    "top_p": ([1e-6, 1], [0, 1.001, -1, "1"]),
    "top_k": ([0, 1, VOCABULARY, VOCABULARY + 1, 2**31 - 1], [-1, 2**31, 2**64, 0.5, "1"]),
    "min_p": ([0, 0.999], [1, -0.1, "0"]),
    "typical_p": ([1e-6, 1], [0, 1.1]),
    "repetition_penalty": ([0.001, 10], [0, -1, 10.001]),
    "presence_penalty": ([-2, 2], [-2.001, 2.001, "0"]),
    "frequency_penalty": ([-2, 2], [-2.001, 2.001, "0"]),
    "n": ([1, 2], [0, -1, 129, 1.5, "1", 100]),
    "seed": ([0, -1, 2**63 - 1, -(2**63)], [2**63, 2**64, 0.5, "1"]),
    "max_tokens": ([1], [0, -1, 0.5, 2**31, 2**64, "1"]),
    "max_completion_tokens": ([1], [0, -1, 0.5, 2**31, "1"]),
    "stop": (["x", [], ["x"] * 16], ["", [""], ["x"] * 17, 1, [1], {}]),
    "logit_bias": (
        [{}, {"0": -100}, {str(VOCABULARY - 1): 100}],
        [{str(VOCABULARY): 1}, {"-1": 1}, {"x": 1}, {"0": 101}, {"0": "1"}, [], 1]),
    "logprobs": ([False], ["true", 1, 5]),
    "top_logprobs": ([], [0, 1, 21, -1, "1"]),  # without logprobs
    "stream": ([], ["true", 1, 0]),
    "stream_options": ([], [{}, {"include_usage": True}, True]),  # without a stream
    "model": ([], [1, [], {}]),
    "messages": (
        [],
        [[], "x", {}, [{}], [{"role": "user", "content": 1}], [{"role": "x", "content": "x"}],
         [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]]),
    "tools": ([[]], [[{"type": "function", "function": {"name": "f"}}], "x"]),
    "tool_choice": (["none", "auto"], ["required", {"type": "function", "function": {"name": "f"}}]),
    "response_format": ([{"type": "text"}], [{"type": "json_object"}, {"type": "x"}, "text"]),
    "modalities": ([["text"]], [["audio"]]),
    "audio": ([], [{"voice": "x", "format": "wav"}]),
    "adapter": (["", "base"], ["x", "a+", "a*x", "+".join("a" * 9), 1, ["a"]]),
    "adapters": (["", []], ["x", [{"id": "x"}], [{"id": "a+b"}], [{}], [{"id": "x", "weight": 101}], 1]),
    "chat_template_kwargs": ([{}, {"enable_thinking": False}], ["x", [], {"messages": []}]),
    "reasoning_effort": (["none", "low"], ["x", 1]),
    "kv_cache": (
        [{"bits": 4}, {"method": "dense"}],
        [{}, {"bits": 7}, {"bits": 0}, {"bits": -1}, {"bits": 4, "group_size": 48}, {"bits": 2.5}, {"method": "x"}, 4]),
    "user": (["x"], [1]),
}  # fmt: skip


def fields_are_taken_up_to_their_ends(server, path, base, fields):
    for field, (taken, refused) in fields.items():
        for value in taken + (NOTHING if field not in base else []):
            status, _, body = server.request(path, {**base, field: value})
            assert status == 200, (field, value, body)
        for value in refused:
            for stream in (False, True) if field not in ("stream", "stream_options") else (False,):
                status, headers, body = server.request(path, {**base, "stream": stream, field: value})
                assert status in (400, 404), (field, value, status, body)
                assert headers["x-request-id"]
                error = body["error"]
                assert set(error) == {"message", "type", "param", "code"}, error
                assert field in (error["param"] or error["message"]), (field, value, error)
                assert error["type"] == "invalid_request_error" and error["code"]
        alive(server)


def alive(server):
    status, _, body = server.request("/v1/completions", {"prompt": "Anna", "max_tokens": 1})
    assert status == 200, body


def bodies_that_are_no_requests(server):
    for body in (
        b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b'{"messages": [', b"[" * 100_000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}], "n": 1, "n": 2}',
    ):  # fmt: skip
        status, _, answer = server.request("/v1/chat/completions", body)
        assert status == 400, (body[:60], status, answer)
        assert answer["error"]["message"], answer
    alive(server)


def lengths_are_refused_with_both_numbers(server):
    described = server.request("/v1/models/tiny-qwen3.5")[2]
    limit = described["max_model_len"]
    status, _, body = server.request(
        "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": limit + 1})
    assert status == 400 and body["error"]["code"] == "context_length_exceeded", body
    assert body["error"]["param"] == "max_tokens", body
    assert str(limit) in body["error"]["message"] and str(limit + 1) in body["error"]["message"], body
    status, _, body = server.request("/v1/completions", {"prompt": [5] * (limit + 1)})
    assert status == 400 and str(limit) in body["error"]["message"], body
    assert body["error"]["param"] == "prompt", body
    assert str(limit + 1) in body["error"]["message"], body


def unknown_fields_are_named(server):
    status, headers, _ = server.request(
        "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1, "xtc_probability": 1})
    assert status == 200 and headers["x-optiq-ignored-fields"] == "xtc_probability"


def the_client_raises_its_own_errors(server):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    try:
        client.chat.completions.create(model="default", messages=MESSAGES, temperature=3)
    except openai.BadRequestError as error:
        assert error.param == "temperature" and error.code == "invalid_value", error
    else:
        raise AssertionError("took a temperature of 3")
    try:
        client.chat.completions.create(model="default", messages=MESSAGES, temperature=math.nan)
    except (openai.BadRequestError, openai.APIConnectionError, ValueError):
        pass  # some versions refuse to write it
    else:
        raise AssertionError("took a temperature of NaN")


def main():
    completions = {
        "prompt": (
            [], [[], [[]], 1, {}, ["x", 1], [-1], [VOCABULARY], [2**31], [0.5], [[1], "x"], ""]),
        "logprobs": ([0, 20], [21, -1, True, "1"]),
        "echo": ([True, False], ["true", 1]),
        "best_of": ([1], [0, 2, "1"]),
        "suffix": ([""], ["x"]),
    }  # fmt: skip
    with serving_model() as server:
        chat = {"messages": MESSAGES, "max_tokens": 1}
        fields_are_taken_up_to_their_ends(server, "/v1/chat/completions", chat, FIELDS)
        fields_are_taken_up_to_their_ends(
            server, "/v1/completions", {"prompt": "x", "max_tokens": 1}, completions)
        bodies_that_are_no_requests(server)
        lengths_are_refused_with_both_numbers(server)
        unknown_fields_are_named(server)
        the_client_raises_its_own_errors(server)
        assert server.is_alive()
        assert server.metrics()["optiq_engine_restarts_total"] == 0
        print(json.dumps({k: v for k, v in server.metrics().items() if "responses" in k}, indent=1))


if __name__ == "__main__":
    main()
