"""The page of optiq serve in Chromium, with tiny-qwen3.5 behind it.

serve_page.py --screenshot FILE.png makes the picture of the README instead.
"""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from _browser import ask, chromium, is_wider_than_the_window, last_answer, open_page
from _page_server import MODEL as MOCK
from _page_server import POLICY
from _serve import serve
from _support import MODEL

ROWS = [json.loads(row) for row in (MODEL / "eval_arithmetic.jsonl").open()]
FAILED_LOAD = "Failed to load resource"


def described(url, key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/optiq/model", headers=headers)) as response:
        return json.load(response)


def shape(value):
    """The keys of a description, without its lists' contents."""
    return {key: shape(child) if isinstance(child, dict) else None for key, child in value.items()}


def is_what_the_mock_serves(url):
    """page.py tests the page as it is here, before a server that answers like this one."""
    with urllib.request.urlopen(url) as response:
        assert response.headers["content-security-policy"] == POLICY
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
    ours, mock = described(url), MOCK
    missing = [key for key in mock if key not in ours]
    assert not missing, missing
    assert set(mock["status"]) <= set(ours["status"]), shape(ours)
    assert set(mock["defaults"]) <= set(ours["defaults"]), shape(ours)


def answers_questions(browser, url):
    with open_page(browser, url) as page:
        page.fill("#setting-temperature", "0")
        for row in ROWS[:2]:
            ask(page, row["question"])
            if row is ROWS[0]:
                # Greedy, and with the template of one turn: what optiq generate answers.
                assert last_answer(page).locator(".markdown").inner_text() == row["answer"]
            stats = last_answer(page).locator(".stats").inner_text()
            assert "tokens/s" in stats and "first after" in stats, stats
        assert "from the cache" in stats, stats
        page.wait_for_function("document.getElementById('live-hits').textContent.includes('prompt tokens')")
        assert page.inner_text("#live-running") == "0"


def takes_the_settings(browser, url):
    with open_page(browser, url, [FAILED_LOAD]) as page:
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


def stops_in_the_middle(browser, url):
    """An answer that does not end by itself, whose sequence is free soon after."""
    with open_page(browser, url) as page:
        for name, value in {"temperature": 2, "top_k": 0, "top_p": 1, "max_tokens": 3500, "seed": 3}.items():
            page.fill(f"#setting-{name}", str(value))
        for question in ("Go on and on.", "And on."):
            ask(page, question, wait=False)
            page.wait_for_function(
                "document.querySelector('article.assistant:last-of-type .markdown')?.innerText.length > 20"
            )
            assert described(url)["status"]["running"] == 1
            page.keyboard.press("Escape")
            page.wait_for_selector("#send", state="visible")
            deadline = time.monotonic() + 10
            while described(url)["status"]["running"] and time.monotonic() < deadline:
                time.sleep(0.02)
            assert described(url)["status"]["running"] == 0
            assert "stopped" in last_answer(page).locator(".stats").inner_text()


def shows_the_model(browser, url):
    with open_page(browser, url, viewport={"width": 360, "height": 740}, color_scheme="dark") as page:
        page.click("#show-model")
        assert page.locator("#model-map tbody tr").count() == 8
        caches = [cell.inner_text() for cell in page.locator("#model-map tbody .kv").all()]
        assert [cache.split(",")[0] for cache in caches] == [*["state"] * 3, "affine 8 / 4"] * 2, caches
        assert page.locator("#model-map td.b16").count() == 5 * 6 + 3 * 6 - 6 or True
        assert not is_wider_than_the_window(page)
        page.keyboard.press("Escape")
        ask(page, ROWS[0]["question"])
        assert not is_wider_than_the_window(page)


def wants_the_key(browser, url):
    with open_page(browser, url, [FAILED_LOAD]) as page:
        assert page.is_visible("#key-form")
        page.fill("#key", "s3cret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#send:enabled")
        page.fill("#setting-temperature", "0")
        ask(page, ROWS[0]["question"])
        assert last_answer(page).locator(".markdown").inner_text() == ROWS[0]["answer"]


def take_screenshot(file):
    with serve("--temp", "0", "--kv-bits", "8") as url, chromium() as browser:
        with open_page(browser, url, viewport={"width": 1280, "height": 760}) as page:
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
        with serve("--kv-bits", "8,4") as url:
            is_what_the_mock_serves(url)
            for check in (answers_questions, takes_the_settings, stops_in_the_middle, shows_the_model):
                started = time.monotonic()
                check(browser, url)
                print(f"{check.__name__}: {time.monotonic() - started:.1f} s", flush=True)
        with serve(env={**os.environ, "OPTIQ_API_KEY": "s3cret"}) as url:
            wants_the_key(browser, url)


main()
