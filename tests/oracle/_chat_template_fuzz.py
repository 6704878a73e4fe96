"""Templates made by chance, from a fixed seed: every filter, test, method,
operator and way to format of jinja2 and Python on small values and on integers
at the edges. What is left out, and why, is DELIBERATE."""

import inspect
import random

# Differences that are meant: kind and name -> why.
DELIBERATE = {
    ("filter", "random"): "another prompt at every run",
    ("filter", "striptags"): "is for web pages, and needs their 2,231 entities",
    ("filter", "urlize"): "is for web pages",
    ("global", "lipsum"): "another prompt at every run",
    ("str", "encode"): "gives bytes, which templates cannot print",
    ("int", "from_bytes"): "takes bytes",
    ("int", "to_bytes"): "gives bytes",
    ("int", "real"): "an attribute, compared in the cases",
    ("int", "imag"): "an attribute, compared in the cases",
    ("int", "numerator"): "an attribute, compared in the cases",
    ("int", "denominator"): "an attribute, compared in the cases",
    ("float", "real"): "an attribute, compared in the cases",
    ("float", "imag"): "an attribute, compared in the cases",
    ("float", "fromhex"): "is a notation of programs",
    ("float", "hex"): "is a notation of programs",
}
# Ours alone.
ADDED = {("filter", "from_json"): "published templates for other engines use it"}

# Generators in jinja2, whose print would be an address.
GENERATORS = {"batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr",
              "slice", "unique"}

INTEGERS = ["0", "1", "-1", "2", "3", "5", "10", "-7", "4294967296", "9007199254740993",
            "9223372036854775807", "(-9223372036854775807 - 1)", "9223372036854775808",
            "18446744073709551617", "(-(10 ** 30))", "(10 ** 40 + 1)"]
# No widths between what is quick and what cannot be allocated at all.
WIDTHS = ["0", "1", "2", "3", "5", "8", "12", "-1", "-3", "(-9223372036854775807 - 1)",
          "9223372036854775807", "9223372036854775808", "(-(10 ** 30))", "(10 ** 30)"]
FLOATS = ["0.0", "0.5", "1.5", "2.5", "-2.5", "-0.0", "123.456", "1e16", "1e22", "1e-7", "2.675",
          "1e308", "1234567.891", "99.95"]
STRINGS = ["''", "'a'", "'abc'", "'Hello, World'", "'  a b  c '", "'na\\u00efve Stra\\u00dfe'",
           "\"it's \\\"q\\\"\"", "'a-b_c d.e'", "'12'", "'-3.75'", "'0x1f'", "'1_000'", "'<b>&x'",
           "'a,b,,c'", "'x\\ty\\nz\\r\\n'", "'%s-%d'", "'{}{0}'", "'\\U0001F600\\u0130\\u03a3'",
           "'ab' * 40", "'one two-three four--five six ' * 5", "'aXbXc'", "'\\u00b2\\u00bd5'",
           "('<i>' | safe)", "'TiTle Case'", "'10' * 20", "'a b c d'"]
LISTS = ["[]", "[1]", "[3, 1, 2]", "['b', 'A', 'c', 'a']", "[1, 'a', none]", "[[1, 2], [3]]",
         "[1.5, 2, true]", "[('a', 1), ('b', 2)]", "(1, 2, 3)", "()", "('x',)", "range(5)",
         "range(10, 0, -3)", "rows", "words", "['x' * 30] * 5",
         "[{'a': 1}, {'a': 2, 'b': 'x'}, {'a': 1}]", "[true, 1, 1.0, 'A', 'a']",
         "[{'a': {'b': 'x'}}, {'a': {'b': 'X'}}]"]
DICTS = ["{}", "{'a': 1}", "{'b': 2, 'A': 1, 'c': none}", "d", "{1: 'x', 'y': [1, 2]}",
         "{'k': {'n': [1, 2]}, 'a b': '<'}", "{'x' * 20: 'y' * 70, 'z': ['w' * 30] * 4}"]
OTHER = ["none", "true", "false", "undefined_name"]
NAMES = ["'upper'", "'length'", "'a'", "'name'", "'age'", "'a.b'", "'tags.0'", "'odd'", "'defined'",
         "'in'", "'string'", "'eq'", "'common'", "'ceil'", "'floor'", "'key'", "'value'", "' '",
         "','", "'l'", "'X'", "'a,b'", "0", "1"]
KEYWORDS = ["case_sensitive=true", "reverse=true", "attribute='a'", "default='-'", "width=10",
            "first=true", "blank=true", "start=1", "binary=true", "boolean=true", "indent=1"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in",
             "not in", "and", "or"]
METHODS = {
    "str": (str, STRINGS), "list": (list, LISTS[:8]), "dict": (dict, DICTS),
    "int": (int, INTEGERS + ["true"]), "float": (float, FLOATS), "tuple": (tuple, ["(1, 2, 1)"]),
}


class Generator:
    def __init__(self, seed, env):
        self.random = random.Random(seed)
        self.env = env

    def pick(self, *pools):
        return self.random.choice(self.random.choice(pools))

    def value(self):
        return self.pick(INTEGERS, FLOATS, STRINGS, STRINGS, LISTS, LISTS, DICTS, OTHER)

    def argument(self):
        return self.pick(WIDTHS, NAMES, NAMES, STRINGS, OTHER, LISTS)

    def arguments(self, function=None):
        given = [self.argument() for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 3]))]
        if self.random.random() < 0.2:
            given.append(self.random.choice(KEYWORDS))
        elif function is not None and self.random.random() < 0.3:
            name = self.random.choice(_parameters(function))
            given.append(f"{name}={self.argument()}")
        return f"({', '.join(given)})" if given else ""

    def filter(self, name):
        function = self.env.filters[name]
        arguments = self.arguments(function)
        if name in ("slice", "round"):
            # These would run for as many rounds as the number says.
            for width in ("(-9223372036854775807 - 1)", "(-(10 ** 30))", "9223372036854775807",
                          "9223372036854775808", "(10 ** 30)"):
                arguments = arguments.replace(width, "4")
        if name == "tojson":  # arguments that json.dumps looks at
            arguments = self.random.choice(
                ["", "(true)", "(indent=1)", "(false, 2)", "(sort_keys=true)", "(indent='-')",
                 "(separators=(',', ':'))"])
        expression = f"{self.value()} | {name}{arguments}"
        if name == "attr":  # methods print as addresses
            return f"{expression} is callable"
        return f"{expression} | list" if name in GENERATORS else expression

    def test(self, name):
        if not name[0].isalpha():
            return f"{self.pick(LISTS)} | select('{name}', {self.value()}) | list"
        return f"{self.value()} is {name}{self.arguments()}"

    def method(self, kind, name):
        arguments = self.arguments() or "()"
        return f"({self.random.choice(METHODS[kind][1])}).{name}{arguments}"

    def operation(self):
        left, right = self.value(), self.value()
        sign = self.random.choice(OPERATORS)
        if sign in "**":  # no results of megabytes
            left, right = self.pick(INTEGERS, FLOATS, STRINGS, LISTS), self.pick(
                ["0", "1", "2", "3", "-1", "7", "(-(10 ** 30))"], OTHER)
        return f"{left} {sign} {right}"

    def subscript(self):
        part = lambda: self.random.choice(["", self.pick(WIDTHS)])
        inside = self.random.choice([self.value(), f"{part()}:{part()}", f"{part()}:{part()}:{part()}"])
        return f"({self.pick(STRINGS, LISTS)})[{inside}]"

    def percent(self):
        flags = "".join(self.random.sample("-+ #0", self.random.randrange(3)))
        width = self.random.choice(["", "", "1", "5", "12", "*"])
        precision = self.random.choice(["", "", ".0", ".2", ".8", ".", ".*"])
        kind = self.random.choice("diuxXoeEfFgGcrsa%q")
        if kind in "gG":  # glibc drops a zero of %#.2g when 99.95 becomes 1.0e+02
            flags = flags.replace("#", "")
        stars = ["7", "-9", "3"][: (width == "*") + (precision == ".*")]
        values = ", ".join(stars + [self.pick(INTEGERS, FLOATS, STRINGS, OTHER, LISTS)])
        return f"'[%{flags}{width}{precision}{kind}]' % ({values},)"

    def brace(self):
        align = self.random.choice(["", "<", ">", "^", "=", "*<", "0>", "\u00e9^"])
        sign = self.random.choice(["", "", "+", " ", "-"])
        rest = self.random.choice(["", "#", "0", "#0", "z"])
        width = self.random.choice(["", "3", "10", "15"])
        group = self.random.choice(["", "", ",", "_"])
        precision = self.random.choice(["", "", ".0", ".1", ".3", ".10"])
        kind = self.random.choice(["", "", "s", "d", "x", "X", "o", "b", "c", "e", "E", "f", "F", "g",
                                   "G", "%", "n", "q"])
        conversion = self.random.choice(["", "", "", "!r", "!s", "!a"])
        spec = align + sign + rest + width + group + precision + kind
        colon = ":" if spec else ""
        return f"'[{{{conversion}{colon}{spec}}}]'.format({self.pick(INTEGERS, FLOATS, STRINGS, OTHER)})"

    def templates(self, rounds):
        """Every name `rounds` times, and as many of the rest."""
        for _ in range(rounds):
            for name in sorted(self.env.filters):
                if ("filter", name) not in DELIBERATE and name != "from_json":
                    yield self.filter(name)
            for name in sorted(self.env.tests):
                yield self.test(name)
            for kind in METHODS:
                for name in methods(kind):
                    if (kind, name) not in DELIBERATE:
                        yield self.method(kind, name)
            for _ in range(30):
                yield self.operation()
                yield self.subscript()
                yield self.percent()
                yield self.brace()


def methods(kind):
    return [name for name in dir(METHODS[kind][0]) if not name.startswith("_")]


def _parameters(function):
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        return ["x"]
    # The value comes first, after what jinja2 passes itself.
    passed = ("eval_ctx", "environment", "env", "context", "args", "kwargs")
    return [n for n in names if n not in passed][1:] or ["x"]


def generated(env, rounds, seed=20):
    return ["{{ " + expression + " }}" for expression in Generator(seed, env).templates(rounds)]


def missing(env, names):
    """What jinja2 or Python has and `names` (kind -> names) lacks, or the other way
    round, without being deliberate."""
    theirs = {("filter", n) for n in env.filters} | {("test", n) for n in env.tests}
    theirs |= {("global", n) for n in env.globals}
    changes = {"list": {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"},
               "dict": {"clear", "pop", "popitem", "setdefault", "update"}}
    for kind in METHODS:
        theirs |= {(kind, n) for n in methods(kind) if n not in changes.get(kind, ())}
    ours = {(kind, n) for kind in ("filter", "test", "global", *METHODS) for n in names[kind]}
    return sorted((theirs - ours - set(DELIBERATE)) | (ours - theirs - set(ADDED)))
