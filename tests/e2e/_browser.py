"""Chromium for the tests of the page, and what it may never do there."""

import contextlib
import os
import shutil
import time
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright


@contextlib.contextmanager
def chromium():
    """A headless browser. scripts/setup --developer installs it."""
    path = shutil.which("chromium")
    assert path, "chromium was not found: run scripts/setup --developer"
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(browser, url, expect_console=(), **options):
    """A page of its own context. At the end it must have logged no error but
    those that start like `expect_console`, thrown nothing, asked no other
    origin, and broken no rule of its Content-Security-Policy."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(60_000)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(f"thrown: {error}"))

    def hear(message):
        expected = any(message.text.startswith(start) for start in expect_console)
        if message.type in ("error", "warning") and not expected:
            problems.append(f"console: {message.text}")

    page.on("console", hear)
    origin = urlsplit(url).netloc

    def see(request):
        if urlsplit(request.url).netloc != origin:
            problems.append(f"request: {request.url}")

    page.on("request", see)
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', "
        "e => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`))"
    )
    page.goto(url)
    wait_until_ready(page)
    yield page
    context.close()
    assert not problems, problems


def wait_until_ready(page):
    """Until the page knows what is served, or why it does not."""
    page.wait_for_selector("#send:enabled, #trouble:not([hidden])")


def wait_until(condition, seconds=60):
    """Polls from here: the page's policy forbids what wait_for_function does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)


def ask(page, question, wait=True):
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    if wait:
        page.wait_for_selector("#stop", state="hidden")


def last_answer(page):
    return page.locator("article.assistant").last


def is_wider_than_the_window(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
