"""Lengths of functions in formatted C++ and Python sources.

clang-format has run over every C++ source (lint/format), so a small scanner of
braces is enough: a brace that follows a parameter list, directly in a namespace
or a type, opens a function. Counted are the lines of its body, from brace to brace.
"""

import ast
import re

_LITERALS = re.compile(
    r'R"(?P<tag>[^\s()\\]{0,16})\(.*?\)(?P=tag)"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"  # not a digit separator
    r"|//[^\n]*|/\*.*?\*/",
    re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.MULTILINE)
_TYPE = re.compile(r"\b(class|struct|union|enum)\b(?!.*\))", re.DOTALL)
_NAMESPACE = re.compile(r"\b(namespace|extern)\b")


def _blank(match):
    """The same lines without their characters."""
    return re.sub(r"[^\n]", " ", match.group(0))


def _opens(head, outside):
    """What a brace after `head` opens, in a namespace or type if `outside`."""
    if not outside:
        return "block"
    if _NAMESPACE.search(head) and "(" not in head:
        return "scope"
    if _TYPE.search(head):
        return "scope"
    return "function" if ")" in head and not re.search(r"=\s*$", head) else "block"


def cpp_functions(text):
    """Yields (first line, lines of the body, declaration) of each function."""
    text = _DIRECTIVE.sub(_blank, _LITERALS.sub(_blank, text))
    open_braces = []  # (kind, offset of its declaration, offset of the brace)
    begin = 0  # of the statement that is being read
    for at, character in enumerate(text):
        if character not in "{};":
            continue
        if character == "{":
            outside = all(kind == "scope" for kind, _, _ in open_braces)
            head = text[begin:at]
            start = begin + len(head) - len(head.lstrip())
            open_braces.append((_opens(head, outside), start, at))
        elif character == "}" and open_braces:
            kind, start, brace = open_braces.pop()
            if kind == "function":
                first = text.count("\n", 0, start) + 1
                yield first, text.count("\n", brace, at) + 1, " ".join(text[start:brace].split())
        if character != ";" or not any(kind == "function" for kind, _, _ in open_braces):
            begin = at + 1


def python_functions(text):
    """Yields (first line, number of lines, name) of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1, node.name
