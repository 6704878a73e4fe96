"""The page of optiq serve in Chromium, with tiny-qwen3.5 behind it.

serve_page.py --screenshot FILE.png makes the picture of the README instead.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _adapters import write_adapter
from _browser import ask, chromium, is_wider_than_the_window, last_answer, open_page, wait_until
from _page_server import MODEL as MOCK
from _page_server import POLICY
from _server import serving_model
from _support import MODEL, scratch

ROWS = [json.loads(row) for row in (MODEL / "eval_arithmetic.jsonl").open()]
KEY = "s3cret"
FAILED_LOAD = "Failed to load resource"


def status_of(server):
    return server.request("/v1/optiq/model")[2]["status"]


def is_what_the_mock_serves(server):
    """page.py tests the page as it is here, before a server that answers like this one."""
    _, headers, _ = server.request("/")
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    _, _, described = server.request("/v1/optiq/model")
    assert set(MOCK) <= set(described), set(MOCK) - set(described)
    for part in ("status", "defaults"):
        assert set(MOCK[part]) <= set(described[part]), described[part]


def text_of_answer(page):
    """The last answer as the model wrote it: it ends with a heading, "#### 42"."""
    steps, heading = (last_answer(page).locator(f".markdown > {tag}").inner_text() for tag in ("p", "h6"))
    return f"{steps}\n#### {heading}"


def answers_questions(browser, server):
    with open_page(browser, server.url) as page:
        page.fill("#setting-temperature", "0")
        for row in ROWS[:2]:
            ask(page, row["question"])
            if row is ROWS[0]:
                assert text_of_answer(page) == row["answer"]
            stats = last_answer(page).locator(".stats").inner_text()
            assert "tokens/s" in stats and "first after" in stats, stats
        assert "from the cache" in stats, stats
        wait_until(lambda: "prompt tokens" in page.inner_text("#live-hits"))
        # What the page asked last may be from while the answer ran.
        wait_until(lambda: page.inner_text("#live-running") == "0")


def takes_the_settings(browser, server):
    with open_page(browser, server.url, [FAILED_LOAD]) as page:
        page.fill("#setting-max_tokens", "3")
        ask(page, ROWS[0]["question"])
        stats = last_answer(page).locator(".stats").inner_text()
        assert stats.startswith("3 tokens") and "ended at the most tokens" in stats, stats
        drawn = []
        for seed in (1, 2, 1):
            page.fill("#setting-max_tokens", "24")
            page.fill("#setting-temperature", "2")
            page.fill("#setting-top_k", "0")
            page.fill("#setting-top_p", "1")
            page.fill("#setting-seed", str(seed))
            page.click("#new-chat")
            ask(page, "Tell me something.")
            drawn.append(last_answer(page).locator(".body").inner_text())
        assert drawn[0] == drawn[2] != drawn[1], drawn
        page.select_option("#kv-cache", "affine 8")
        ask(page, "And with another cache?")
        assert last_answer(page).get_by_role("alert").count() == 0
        page.fill("#setting-max_tokens", "100000")
        ask(page, "Too much?")
        assert "4096" in last_answer(page).get_by_role("alert").inner_text()


def letters(text):
    """Without what may be Markdown."""
    return [c for c in text if c.isalnum()]


def runs_with_an_adapter(browser, server):
    """What the page says is what the API answers with it."""
    settings = {"temperature": 2, "top_k": 0, "top_p": 1, "seed": 1, "max_tokens": 12}
    body = {"messages": [{"role": "user", "content": "Tell me something."}], **settings}
    said = {}
    for adapter in ("base", "random"):
        status, _, answer = server.request("/v1/chat/completions", {**body, "adapter": adapter})
        assert status == 200, answer
        said[adapter] = answer["choices"][0]["message"]["content"]
    assert said["base"] != said["random"], said
    with open_page(browser, server.url) as page:
        for name, value in settings.items():
            page.fill(f"#setting-{name}", str(value))
        for adapter, option in (("random", "random"), ("base", "")):
            page.select_option("#adapter", option)
            page.click("#new-chat")
            ask(page, "Tell me something.")
            shown = page.evaluate("document.querySelector('article.assistant .markdown').textContent")
            assert letters(shown) == letters(said[adapter]), (adapter, shown, said)
            has_name = "adapter random" in last_answer(page).locator(".stats").inner_text()
            assert has_name == (adapter == "random")


def stops_in_the_middle(browser, server):
    """An answer that does not end by itself, whose sequence is free soon after."""
    with open_page(browser, server.url) as page:
        for name, value in {"temperature": 2, "top_k": 0, "top_p": 1, "max_tokens": 3500, "seed": 3}.items():
            page.fill(f"#setting-{name}", str(value))
        for question in ("Go on and on.", "And on."):
            ask(page, question, wait=False)
            wait_until(lambda: len(last_answer(page).inner_text()) > 20)
            assert status_of(server)["running"] == 1
            page.keyboard.press("Escape")
            page.wait_for_selector("#send", state="visible")
            wait_until(lambda: status_of(server)["running"] == 0)
            assert "stopped" in last_answer(page).locator(".stats").inner_text()


def shows_the_model(browser, server):
    with open_page(browser, server.url, viewport={"width": 360, "height": 740}, color_scheme="dark") as page:
        page.click("#show-model")
        assert page.locator("#model-map tbody tr").count() == 8
        caches = [cell.inner_text() for cell in page.locator("#model-map tbody .kv").all()]
        assert [cache.split(",")[0] for cache in caches] == [*["state"] * 3, "affine 8 / 4"] * 2, caches
        # Three of four layers are delta nets: five projections, no q k v o; three of the MLP in all.
        assert page.locator("#model-map td.b16").count() == 6 * (5 + 3) + 2 * (4 + 3)
        assert not is_wider_than_the_window(page)
        page.keyboard.press("Escape")
        ask(page, ROWS[0]["question"])
        assert not is_wider_than_the_window(page)


def wants_the_key(browser, server):
    with open_page(browser, server.url, [FAILED_LOAD]) as page:
        assert page.is_visible("#key-form")
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#send:enabled")
        page.fill("#setting-temperature", "0")
        ask(page, ROWS[0]["question"])
        assert text_of_answer(page) == ROWS[0]["answer"]


def take_screenshot(file):
    with serving_model("--threads", "1", "--temp", "0", "--kv-bits", "8") as server, chromium() as browser:
        with open_page(browser, server.url, viewport={"width": 1280, "height": 760}) as page:
            for row in ROWS[:3]:
                ask(page, row["question"])
            page.wait_for_timeout(1500)  # for the server's figures
            page.screenshot(path=file)
    print(f"{file}: {os.path.getsize(file)} bytes")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--screenshot":
        take_screenshot(sys.argv[2])
        return
    with chromium() as browser:
        with scratch() as folder, serving_model(
            "--threads", "1", "--kv-bits", "8,4", "--adapter", f"random={write_adapter(Path(folder) / 'a', 1)}"
        ) as server:
            is_what_the_mock_serves(server)
            checks = (
                answers_questions, takes_the_settings, runs_with_an_adapter, stops_in_the_middle, shows_the_model)
            for check in checks:
                started = time.monotonic()
                check(browser, server)
                print(f"{check.__name__}: {time.monotonic() - started:.1f} s", flush=True)
        with serving_model("--threads", "1", "--api-key", KEY) as server:
            wants_the_key(browser, server)


main()
