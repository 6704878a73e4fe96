"""The real openai client against optiq serve: every field, streaming and not."""

import json

import openai
from _server import MODEL, serving_model

ROWS = [json.loads(r) for r in (MODEL / "eval_arithmetic.jsonl").open()]
QUESTION, ANSWER = ROWS[0]["question"], ROWS[0]["answer"]
BEGINNING = "Anna has 2 apples"  # a text that goes on
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY = {"messages": MESSAGES, "temperature": 0}


def answers_and_streams_the_same(chat):
    whole = chat(**GREEDY)
    assert whole.choices[0].message.content == ANSWER, whole
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.object == "chat.completion" and whole.id.startswith("chatcmpl-")
    assert whole.system_fingerprint.startswith("optiq-")
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    chunks = list(chat(**GREEDY, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == ANSWER
    assert [c.choices[0].delta.role for c in chunks[:-1]].count("assistant") == 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == usage.completion_tokens
    assert len({c.id for c in chunks}) == 1
    without = list(chat(**GREEDY, stream=True))
    assert all(c.usage is None and len(c.choices) == 1 for c in without)


def parts_of_content_are_one_text(chat):
    parts = [{"type": "text", "text": QUESTION[:9]}, {"type": "text", "text": QUESTION[9:]}]
    answer = chat(messages=[{"role": "user", "content": parts}], temperature=0)
    assert answer.choices[0].message.content == ANSWER


def seeds_repeat_and_choices_differ_by_theirs(chat):
    hot = {"temperature": 2, "top_p": 1, "extra_body": {"top_k": 0}}
    draw = {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 12, **hot}
    three = chat(**draw, n=3, seed=11)
    assert [c.index for c in three.choices] == [0, 1, 2]
    for choice in three.choices:
        alone = chat(**draw, seed=11 + choice.index)
        assert alone.choices[0].message.content == choice.message.content
    assert len({c.message.content for c in three.choices}) > 1
    streamed = ["", "", ""]
    for chunk in chat(**draw, n=3, seed=11, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == [c.message.content for c in three.choices]
    assert three.usage.prompt_tokens == chat(**draw).usage.prompt_tokens


def stops_before_a_string_wherever_tokens_cut_it(chat):
    for begin in range(1, len(ANSWER) - 1):
        stop = ANSWER[begin : begin + 2]
        expected = ANSWER[: ANSWER.find(stop)]
        answer = chat(**GREEDY, stop=[stop, "never"])
        assert answer.choices[0].message.content == expected, (stop, answer)
        assert answer.choices[0].finish_reason == "stop"
        pieces = chat(**GREEDY, stop=stop, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in pieces) == expected


def ends_at_max_tokens(chat):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = chat(**GREEDY, **{field: 2})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 2
        assert ANSWER.startswith(answer.choices[0].message.content)


def gives_logprobs(chat):
    answer = chat(**GREEDY, logprobs=True, top_logprobs=5)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) in (answer.usage.completion_tokens, answer.usage.completion_tokens - 1)
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == ANSWER
    for token in tokens:
        assert len(token.top_logprobs) == 5
        assert token.top_logprobs[0].logprob == token.logprob <= 0  # greedy
        values = [t.logprob for t in token.top_logprobs]
        assert values == sorted(values, reverse=True)
    streamed = []
    for chunk in chat(**GREEDY, logprobs=True, top_logprobs=5, stream=True):
        streamed += chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []
    assert streamed == tokens
    assert chat(**GREEDY).choices[0].logprobs is None


def penalties_biases_and_filters_act(chat, server):
    first = chat(**GREEDY, logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
    ids = server.request("/tokenize", {"content": first.token})[2]["tokens"]
    banned = chat(**GREEDY, logit_bias={str(ids[0]): -100}, max_tokens=1)
    assert banned.choices[0].message.content != first.token
    forced = chat(**GREEDY, logit_bias={str(ids[0]): 100}, max_tokens=3)
    assert forced.choices[0].message.content == first.token * 3
    for only_best in ({"top_k": 1}, {"min_p": 0.99999}, {"repetition_penalty": 1.0, "top_k": 1}):
        answer = chat(messages=MESSAGES, temperature=2, extra_body=only_best)
        assert answer.choices[0].message.content == ANSWER, (only_best, answer)
    answer = chat(messages=MESSAGES, temperature=2, top_p=1e-6)
    assert answer.choices[0].message.content == ANSWER
    forced = {"logit_bias": {str(ids[0]): 8}, "max_tokens": 4, "logprobs": True}
    plain = chat(**GREEDY, **forced).choices[0].logprobs.content
    for penalty in ({"presence_penalty": 2}, {"frequency_penalty": 2}):
        changed = chat(**GREEDY, **forced, **penalty).choices[0].logprobs.content
        assert changed[0] == plain[0] and changed[1:] != plain[1:], penalty
    answer = chat(**GREEDY, max_tokens=40, extra_body={"repetition_penalty": 10})
    assert answer.choices[0].message.content != ANSWER
    assert chat(**GREEDY, extra_body={"typical_p": 0.5}).choices[0].message.content == ANSWER


def keeps_keys_and_values_as_asked(chat):
    dense = chat(**GREEDY, logprobs=True, max_tokens=4)
    same = chat(**GREEDY, logprobs=True, max_tokens=4, extra_body={"kv_cache": {"method": "dense"}})
    assert same.choices[0].logprobs == dense.choices[0].logprobs
    seen = []
    for kv in ({"bits": 8}, {"bits": "4,2", "group_size": 32}, {"bits": 3.5, "method": "turbo"},
               {"bits": 4, "method": "turbo", "rotation": "orthogonal", "seed": 7}, {"key_bits": 4}):  # fmt: skip
        answer = chat(**GREEDY, logprobs=True, max_tokens=4, extra_body={"kv_cache": kv})
        seen.append([t.logprob for t in answer.choices[0].logprobs.content])
        assert seen.count(seen[-1]) == 1, kv


def continues_texts(client):
    complete = client.completions.create
    plain = complete(model="tiny-qwen3.5", prompt=BEGINNING, temperature=0, max_tokens=6)
    assert plain.object == "text_completion" and plain.id.startswith("cmpl-")
    echoed = complete(model="tiny-qwen3.5", prompt=BEGINNING, temperature=0, max_tokens=6, echo=True)
    assert echoed.choices[0].text == BEGINNING + plain.choices[0].text
    several = complete(model="default", prompt=[BEGINNING, "Anna"], n=2, temperature=0, max_tokens=6)
    assert [c.text for c in several.choices][:2] == [plain.choices[0].text] * 2
    logs = complete(model="default", prompt=BEGINNING, temperature=0, max_tokens=6, logprobs=2).choices[0].logprobs
    assert "".join(logs.tokens) == plain.choices[0].text
    assert [len(t) for t in logs.top_logprobs] == [2] * len(logs.tokens)
    assert all(max(t.values()) == v for t, v in zip(logs.top_logprobs, logs.token_logprobs))
    assert logs.text_offset[:2] == [0, len(logs.tokens[0])]
    pieces = complete(model="default", prompt=BEGINNING, temperature=0, max_tokens=6, stream=True)
    assert "".join(p.choices[0].text for p in pieces) == plain.choices[0].text


def tokens_are_the_prompt(client, server):
    prompt = server.request("/apply-template", {"messages": MESSAGES})[2]["prompt"]
    tokens = server.request("/tokenize", {"content": prompt})[2]["tokens"]
    assert server.request("/detokenize", {"tokens": tokens})[2]["content"] == prompt
    answer = client.chat.completions.create(model="tiny-qwen3.5", **GREEDY)
    assert answer.usage.prompt_tokens == len(tokens)
    by_ids = client.completions.create(model="tiny-qwen3.5", prompt=tokens, temperature=0)
    assert by_ids.choices[0].text == ANSWER


def lists_its_model(client):
    assert [m.id for m in client.models.list()] == ["tiny-qwen3.5"]
    assert client.models.retrieve("tiny-qwen3.5").object == "model"
    for call in (
        lambda: client.models.retrieve("other"),
        lambda: client.chat.completions.create(model="gpt-4o", messages=MESSAGES),
        lambda: client.embeddings.create(model="tiny-qwen3.5", input="x"),
    ):
        try:
            call()
        except openai.NotFoundError as error:
            assert error.code in ("model_not_found", "not_found"), error
        else:
            raise AssertionError("found what is not there")


def asks_for_its_key():
    with serving_model("--api-key", "secret-1") as server:
        def models(key):
            return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0).models.list()

        assert len(models("secret-1").data) == 1
        for key in ("secret-2", "secret"):
            try:
                models(key)
            except openai.AuthenticationError as error:
                assert error.code == "invalid_api_key", error
            else:
                raise AssertionError("let in without its key")


def main():
    with serving_model() as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=300)

        def chat(**fields):
            return client.chat.completions.create(model="tiny-qwen3.5", **fields)

        answers_and_streams_the_same(chat)
        parts_of_content_are_one_text(chat)
        seeds_repeat_and_choices_differ_by_theirs(chat)
        stops_before_a_string_wherever_tokens_cut_it(chat)
        ends_at_max_tokens(chat)
        gives_logprobs(chat)
        penalties_biases_and_filters_act(chat, server)
        keeps_keys_and_values_as_asked(chat)
        continues_texts(client)
        tokens_are_the_prompt(client, server)
        lists_its_model(client)
    asks_for_its_key()


if __name__ == "__main__":
    main()
