"""Chat templates: jinja2 set up as transformers does, the C++ side to compare
with it, and the conversations that both render."""

import copy
import itertools
import json
import os
import pathlib
import subprocess
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what the assistant said, and prints it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_print")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _print(self, caller):
        return caller()


def _raise(message):
    raise jinja2.exceptions.TemplateError(message)


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _Dict:
    """`dict` without its attributes, as transformers gives it."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args):
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """A namespace whose names do not begin with an underscore, as in transformers."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def environment():
    # `do` is not among transformers' extensions.
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols, jinja2.ext.do],
    )
    env.filters["tojson"] = _tojson
    # Not part of transformers: three published templates call it.
    env.filters["from_json"] = json.loads
    env.globals["raise_exception"] = _raise
    env.globals["dict"] = _Dict()
    env.globals["namespace"] = _Namespace
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return env


def expected(env, cache, template, variables):
    """{"text"} or {"error"} by jinja2."""
    try:
        if template not in cache:
            try:
                cache[template] = env.from_string(template)
            except Exception as error:  # noqa: BLE001: any error is an answer
                cache[template] = error
        if isinstance(cache[template], Exception):
            raise cache[template]
        return {"text": cache[template].render(**copy.deepcopy(variables))}
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def driver_names():
    """The names of all builtins here: kind -> names."""
    driver = pathlib.Path(os.environ["OPTIQ_DRIVER_DIR"]) / "chat_template_driver"
    run = subprocess.run([driver, "--names"], text=True, capture_output=True, check=True)
    return json.loads(run.stdout)


def compare(pairs, label=lambda i: str(i)):
    """Renders (template, variables) pairs on both sides. Returns the number of
    pairs that rendered, that failed on both sides, and that differ."""
    driver = pathlib.Path(os.environ["OPTIQ_DRIVER_DIR"]) / "chat_template_driver"
    lines = [json.dumps({"template": t, "variables": v}) for t, v in pairs]
    run = subprocess.run(
        [driver], input="\n".join(lines) + "\n", text=True, capture_output=True, encoding="utf-8"
    )
    if run.returncode != 0:
        raise SystemExit(f"{driver} failed with {run.returncode}: {run.stderr}")
    # Not splitlines: it would also cut at U+2028 and its like.
    answers = [json.loads(line) for line in run.stdout.split("\n") if line]
    if len(answers) != len(pairs):
        raise SystemExit(f"{len(answers)} answers to {len(pairs)} requests")
    env, cache = environment(), {}
    rendered = failed = different = 0
    for i, ((template, variables), answer) in enumerate(zip(pairs, answers)):
        want = expected(env, cache, template, variables)
        if "error" in want and "error" in answer:
            failed += 1
        elif want == answer:
            rendered += 1
        else:
            different += 1
            if different <= 20:
                print(f"DIFFERENT {label(i)}\n  jinja2: {_show(want)}\n  here:   {_show(answer)}")
                _show_first_difference(want, answer)
    return rendered, failed, different


def _show(answer):
    text = json.dumps(answer, ensure_ascii=False)
    return text if len(text) < 600 else text[:600] + " ..."


def _show_first_difference(want, answer):
    a, b = want.get("text"), answer.get("text")
    if a is not None and b is not None:
        at = len(os.path.commonprefix([a, b]))
        print(f"  at {at}: {a[max(0, at - 40):at + 40]!r}\n     not {b[max(0, at - 40):at + 40]!r}")


_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city.\nUse it \"often\" & <well>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name, e.g. Zürich"},
                    "days": {"type": "integer", "enum": [1, 2, 3], "default": 1},
                    "detail": {
                        "type": "object",
                        "properties": {
                            "hourly": {"type": "boolean"},
                            "fields": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["hourly"],
                    },
                    "unit": {"type": ["string", "null"]},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "stop",
            "description": "Stops.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


# No nesting and no unions: some published templates take no others.
_SIMPLE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a word up.",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string", "description": "A word"}},
                "required": ["word"],
            },
        },
    },
]


def _call(name, arguments, index=0):
    return {
        "id": f"call_{index}abcde"[:9],
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _user(text="Hi there"):
    return {"role": "user", "content": text}


def _assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


_ARGUMENTS = {"city": "Zürich", "days": 2, "detail": {"hourly": True, "fields": ["a", "b\"c"]},
              "unit": None, "ratio": 0.5}


def conversations():
    """Name -> messages."""
    weather = _call("get_weather", _ARGUMENTS)
    as_text = _call("get_weather", json.dumps(_ARGUMENTS, ensure_ascii=False))
    empty = _call("stop", {}, 1)
    result = {"role": "tool", "content": "{\"t\": 21.5}", "tool_call_id": "call_0abc",
              "name": "get_weather"}
    parts = [{"type": "text", "text": "Look: "}, {"type": "text", "text": "<here> 😀"}]
    image = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    pair = [_user(), _assistant("Hello!")]
    table = {
        "user": [_user()],
        "unicode": [_user("日本語 ñ é 😀\u2028 \u00a0x"), _assistant("Ünïcödé 🎉"), _user("…")],
        "empty": [_user("")],
        "spaces": [_user("  \n padded \t\n"), _assistant("\n\n out \n"), _user(" again ")],
        "two turns": pair + [_user("And now?")],
        "three turns": pair + [_user("And now?"), _assistant("Now."), _user("Then?")],
        "ends with assistant": pair,
        "quotes": [_user("a 'b' \"c\" \\n {{ x }} {% y %} <|im_end|> </s>")],
        "parts": [_user(parts)],
        "image": [_user(image)],
        "parts twice": [_user(parts), _assistant([{"type": "text", "text": "Seen."}]), _user(parts)],
        "reasoning": [_user(), _assistant("Fine.", reasoning_content="Let me\nthink."), _user("ok")],
        "reasoning last": [_user(), _assistant("Fine.", reasoning_content="Let me think.")],
        "think in content": [_user(), _assistant("<think>\nhm\n</think>\n\nYes."), _user("ok")],
        "think last": [_user(), _assistant("<think>hm</think>Yes.")],
        "thinking": [_user(), _assistant("Yes.", thinking="deep"), _user("ok")],
        "call": [_user(), _assistant("", tool_calls=[weather]), result],
        "call as text": [_user(), _assistant("", tool_calls=[as_text]), result],
        "call with content": [_user(), _assistant("I look.", tool_calls=[weather]), result],
        "call without content": [_user(), {"role": "assistant", "tool_calls": [weather]}, result],
        "call null content": [_user(), _assistant(None, tool_calls=[weather]), result],
        "call then answer": [_user(), _assistant("", tool_calls=[weather]), result,
                             _assistant("21.5 degrees."), _user("Thanks")],
        "call with reasoning": [_user(), _assistant("", reasoning_content="I need it.",
                                                    tool_calls=[weather]), result],
        "two calls": [_user(), _assistant("", tool_calls=[weather, empty]), result,
                      {**result, "content": "stopped", "tool_call_id": "call_1abc", "name": "stop"},
                      _assistant("Done."), _user("More")],
        "calls in turns": [_user(), _assistant("", tool_calls=[weather]), result,
                           _assistant("", tool_calls=[_call("stop", {}, 2)]),
                           {**result, "content": "ok", "tool_call_id": "call_2abc"}],
        "call pending": [_user(), _assistant("", tool_calls=[weather])],
        "result in parts": [_user(), _assistant("", tool_calls=[weather]),
                            {**result, "content": [{"type": "text", "text": "sunny"}]}],
        "bare call": [_user(), _assistant("", tool_calls=[{"name": "stop", "arguments": {"a": 1}}]),
                      {"role": "tool", "content": "done"}],
        "developer": [{"role": "developer", "content": "Be kind."}, _user()],
        "unknown role": [{"role": "wizard", "content": "x"}, _user()],
        "assistant first": [_assistant("Hello!"), _user()],
        "users in a row": [_user(), _user("again")],
        "late system": [_user(), {"role": "system", "content": "Late."}, _user("x")],
        "no messages": [],
        "no content": [{"role": "user"}],
    }
    system = {"role": "system", "content": "You are \"kind\".\nVery."}
    with_system = {f"system, {name}": [system] + messages for name, messages in table.items()}
    with_system["system in parts"] = [{"role": "system", "content": parts}, _user()]
    return {**table, **with_system}


def requests(everything=True):
    """Name -> variables of a rendering: conversations x tools x options."""
    table = {}
    options = itertools.product(
        [False, True], [("no", None), ("simple", _SIMPLE_TOOLS), ("rich", _TOOLS)],
        [None, True, False])
    for prompt, (kind, tools), thinking in options:
        if not everything and (thinking is None or kind == "simple"):
            continue
        for name, messages in conversations().items():
            variables = {
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": prompt,
                "bos_token": "<s>",
                "eos_token": "</s>",
                "functions": json.dumps(tools),  # firefunction reads these two
                "datetime": "2025-01-01",
            }
            if thinking is not None:
                variables["enable_thinking"] = thinking
            key = f"{name} / prompt={prompt} tools={kind} thinking={thinking}"
            table[key] = variables
    return table
