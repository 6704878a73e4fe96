"""The page's Markdown: markdown-it-py (CommonMark) judges it, and hostile text stays text."""

import re
import time
from html.parser import HTMLParser

from _browser import chromium, open_page
from _page_server import MockServer
from markdown_it import MarkdownIt

CASES = [
    "",
    "one\ntwo\n\nthree",
    "# a\n\n## b ##\n\n###### f\n\n####### no\n\n#no\n\n#",
    "*a* _b_ **c** __d__ ***e*** ~~f~~ *a **b** c* **a *b* c**",
    "snake_case_name 2 * 3 * 4 a*b*c a_b_ _a_b * a * ** b **",
    "*open **open `open [open ~~open",
    "**a *b** c* *a **b* c** *a_b*c_",
    "`code` ``a ` b`` ` ` `` ` `` `*no*` `open",
    "\\*no\\* \\` \\[ \\\\ \\a",
    "[a](https://e.org/) [b *c*](http://e.org/x_y 'title') [d](<https://e.org/a b>) [e](https://e.org/(x))",
    "[a] [b]( [c](e.org x y) [no [inner](https://e.org/) outer](e.org)",
    "*[a*](https://e.org/) [*a](https://e.org/)*",
    "<https://e.org/?a=b&c=d> <nothing> < b > a<b",
    "- a\n- b\n  - c\n    - d\n- e",
    "* a\n\n* b\n\n  more\n\n* c",
    "1. a\n2. b\n   1. c\n3. d",
    "7) a\n8) b",
    "- a\n  ```\n  code\n  ```\n- b\n\nafter",
    "text\n- item\n\ntext\n1. item",
    "text\n2. no item",
    "- a\n+ b\n* c",
    "> a\n> b\n>\n> - c\n> - d\n\nafter",
    "> > deep\n> > er",
    "```py\nx = 1\n\n  y < 2 & 3\n```\n\n~~~\n```\n~~~\n\n````\n```\n````",
    "```\nnever closed\n\n# no heading",
    "---\n\n***\n\n_ _ _\n\na\n***\nb",
    "| a | b |\n|---|:-:|\n| 1 | **2** |\n| 3 |\n| 4 | 5 | 6 |\n\nafter",
    "a | b\n--|--:\n`x` | \\| y\n",
    "no | table\n\n|-|",
    "*a\nb* `c\nd`",
    "ünïcode **日本語**です *é*é",
    "a\n\n\n\nb\n\n",
    "a\n#no\n***no\n1.no\n``` no ```\n~~ no\n-no",
    "- a\n-no\n\n1. b\n1.no",
]

# Text, and what may not happen to it.
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg/onload=window.pwned=1>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "[a](javascript:window.pwned=1) [b](JaVaScRiPt:window.pwned=1) [c](data:text/html,<script>1</script>)",
    "[a](java\tscript:window.pwned=1) [b](<javascript:window.pwned=1>) [c](//evil.example) [d](/v1/models)",
    "[x](https://e.org\"onmouseover=\"window.pwned=1) <https://e.org/\"onclick=\"window.pwned=1>",
    "![pixel](https://evil.example/pixel.png)",
    "```<script>window.pwned=1</script>\n</code></pre><script>window.pwned = 1</script>\n```",
    "| <b>a</b> | b |\n|---|---|\n| <script>window.pwned=1</script> | <i>x</i> |",
    "# <style>* { display: none }</style>",
    "<form action=https://evil.example><input name=key></form>",
]

# What makes a careless parser slow or deep: (piece, times).
HEAVY = [
    ("*a ", 20_000), ("a* ", 20_000), ("*a_b", 20_000), ("*" * 5 + "a", 10_000), ("*", 100_000), ("[", 50_000),
    ("[a](", 20_000), ("](", 30_000), ("`" * 3 + "a`", 15_000), ("> ", 20_000), ("- ", 20_000), ("~", 100_000),
    ("https://", 15_000), ("https://%", 15_000), ("# " + " " * 50_000 + "x", 2), ("<h", 40_000), ("|", 50_000),
    ("a\n", 40_000), ("- a\n", 20_000), ("|a|b|\n|-|-|\n", 5_000), ("\\", 100_000), ("  " * 20 + "- a\n", 2_000),
    ("https://a" + ")" * 50_000, 1), (" " * 100_000 + "\n", 3), ("_a " + "__b ", 20_000), ("!", 50_000),
]  # fmt: skip

SERIALIZE = """
async (sources) => {
  const { renderMarkdown } = await import("/page/markdown.js");
  return sources.map((source) => {
    const box = document.createElement("div");
    box.append(...renderMarkdown(source));
    return box.innerHTML;
  });
}
"""

GROW = """
async (sources) => {
  const { GrowingMarkdown, renderMarkdown } = await import("/page/markdown.js");
  const differing = [];
  for (const source of sources) {
    const grown = document.createElement("div");
    const growing = new GrowingMarkdown(grown);
    for (let end = 0; end <= source.length; end += 1) {
      growing.update(source.slice(0, end));
      const whole = document.createElement("div");
      whole.append(...renderMarkdown(source.slice(0, end)));
      if (whole.innerHTML !== grown.innerHTML) {
        differing.push([source.slice(0, end), whole.innerHTML, grown.innerHTML]);
        break;
      }
    }
  }
  return differing;
}
"""

RENDER = """
async ([piece, times]) => {
  const { renderMarkdown } = await import("/page/markdown.js");
  const box = document.createElement("div");
  for (const node of renderMarkdown(piece.repeat(times))) {
    box.append(node);
  }
  let depth = 0;
  for (const element of box.querySelectorAll("*")) {
    let up = 0;
    for (let node = element; node !== box; node = node.parentNode) {
      up += 1;
    }
    depth = Math.max(depth, up);
    if (depth > 1000) {
      break;
    }
  }
  return depth;
}
"""


class Canonical(HTMLParser):
    """HTML as a list of what it says: elements, links' addresses, text."""

    KEPT = ("href", "start")
    DROPPED = ("div", "span", "button")  # the frame of code blocks and tables

    def __init__(self, html):
        super().__init__()
        self.parts = []
        self.inside = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.inside.append(tag)
        if tag in self.DROPPED:
            return
        kept = [(name, value) for name, value in attributes if name in self.KEPT]
        align = re.search(r"(?:align-|text-align:)(\w+)", dict(attributes).get("class") or dict(attributes).get("style") or "")
        if align:
            kept.append(("align", {"left": "start", "right": "end"}.get(align[1], align[1])))
        if tag in ("th", "td") and not align:
            kept.append(("align", "start"))
        self.parts.append((tag, *kept))
        if tag in ("br", "hr"):
            self.inside.pop()

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
            if tag not in self.DROPPED:
                self.parts.append(("/" + tag,))

    def handle_data(self, data):
        if self.inside and self.inside[-1] in ("span", "button"):
            return
        text = data if "pre" in self.inside else data.strip("\n")
        if "pre" in self.inside:
            text = text.removesuffix("\n")
        if text.strip(" ") or ("code" in self.inside and text):
            self.parts.append(text)


def canonical(html):
    """One string for equal documents; headings one level as the page has them."""
    parts = Canonical(html).parts
    joined = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return [part.strip(" ") if isinstance(part, str) else part for part in joined]


def judged(source):
    """What markdown-it-py makes of it, headings two levels lower, as in the page."""
    judge = MarkdownIt("commonmark", {"breaks": True, "html": False}).enable(["table", "strikethrough"])
    html = judge.render(source)
    return re.sub(r"(</?h)([1-6])>", lambda m: f"{m[1]}{min(6, int(m[2]) + 2)}>", html)


def agrees_with_the_judge(page):
    differing = []
    for source, html in zip(CASES, page.evaluate(SERIALIZE, CASES)):
        ours, theirs = canonical(html), canonical(judged(source))
        if ours != theirs:
            differing.append(f"{source!r}\nours   {ours}\ntheirs {theirs}")
    assert not differing, "\n".join(differing)


def grows_to_the_same(page):
    differing = page.evaluate(GROW, [*CASES, "\n\n".join(CASES), *HOSTILE])
    assert not differing, differing[0]


def keeps_hostile_text_text(page):
    html = page.evaluate(SERIALIZE, HOSTILE)
    for source, made in zip(HOSTILE, html):
        tags = {part[0] for part in Canonical(made).parts if not isinstance(part, str)}
        allowed = {"p", "a", "br", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "h3"}
        assert {tag.lstrip("/") for tag in tags} <= allowed, (source, tags)
        for address in re.findall(r'href="([^"]*)"', made):
            assert address.startswith(("https://", "http://")), (source, address)
        assert made.count("<a ") == made.count('rel="noopener noreferrer"'), made
    page.evaluate("""async (sources) => {
      const { renderMarkdown } = await import("/page/markdown.js");
      document.body.append(...sources.flatMap(renderMarkdown));
    }""", HOSTILE)  # fmt: skip
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None


def is_linear_and_shallow(page):
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_seconds():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime")

    slowest = 0
    for piece, times in HEAVY:
        started = cpu_seconds()
        depth = page.evaluate(RENDER, [piece, times])
        seconds = cpu_seconds() - started
        assert seconds < 2, (piece[:20], times, seconds)
        assert depth < 200, (piece[:20], times, depth)
        slowest = max(slowest, seconds)
    print(f"the slowest text takes {slowest:.2f} s of CPU")


def main():
    with MockServer() as server, chromium() as browser:
        with open_page(browser, server.url) as page:
            for check in (agrees_with_the_judge, grows_to_the_same, keeps_hostile_text_text, is_linear_and_shallow):
                started = time.monotonic()
                check(page)
                print(f"{check.__name__}: {time.monotonic() - started:.1f} s")


main()
