"""A strict reader of the report page: every element closed, no script."""

import xml.etree.ElementTree as tree
from html.parser import HTMLParser

VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Fails on an element that is not closed, or closed out of order."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:])
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    """Parses a page as HTML and as XML; returns its root and its text."""
    source = path.read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>")
    balance = Balance()
    balance.feed(source)
    balance.close()
    assert not balance.open, balance.open
    root = tree.fromstring(source)
    for forbidden in ("<script", "http://", "https://", "src="):
        rest = source.replace("http://www.w3.org/1999/xhtml", "")
        assert forbidden not in rest, forbidden
    return root, "".join(balance.text)
