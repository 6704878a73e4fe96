"""The page of optiq serve in Chromium, before a scripted server."""

import time

from _browser import ask, chromium, is_wider_than_the_window, last_answer, open_page, wait_until, wait_until_ready
from _page_server import MockServer

FAILED_LOAD = "Failed to load resource"  # what Chromium logs of a status that is no 200


def answers_turn_by_turn(browser, server):
    with open_page(browser, server.url) as page:
        assert page.title() == "mock-model · OptIQ"
        ask(page, "first")
        assert last_answer(page).locator(".body").inner_text() == "You said: first"
        assert "3 tokens · 1,235 tokens/s" in last_answer(page).locator(".stats").inner_text()
        ask(page, "second\nline")
        assert server.requests[-1] == {
            "model": "mock-model",
            "messages": [
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "You said: first"},
                {"role": "user", "content": "second\nline"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        ask(page, "split")
        assert last_answer(page).locator(".body").inner_text() == "split lines"
        assert page.locator("#chat-list li").count() == 1
        page.click("#new-chat")
        ask(page, "other")
        assert len(server.requests[-1]["messages"]) == 1
        page.get_by_role("button", name="first", exact=True).click()
        assert page.locator("article").count() == 6


def stops(browser, server):
    with open_page(browser, server.url) as page:
        for way in (lambda: page.keyboard.press("Escape"), lambda: page.click("#stop")):
            gone = server.gone
            ask(page, "slow", wait=False)
            last_answer(page).get_by_text("word2").wait_for()
            assert page.get_attribute("#transcript", "aria-busy") == "true"
            assert not page.is_visible("#send")
            way()
            page.wait_for_selector("#send", state="visible")
            assert "stopped" in last_answer(page).locator(".stats").inner_text()
            assert page.get_attribute("#transcript", "aria-busy") is None
            wait_until(lambda: server.gone == gone + 1)
        ask(page, "after")
        roles = [message["role"] for message in server.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "user", "assistant", "user"], roles
        # Leaving a conversation stops its answer.
        ask(page, "slow", wait=False)
        last_answer(page).get_by_text("word2").wait_for()
        page.click("#new-chat")
        page.wait_for_selector("#send", state="visible")
        assert page.locator("article").count() == 0
        # A conversation that is deleted while its answer comes stays deleted.
        ask(page, "slow", wait=False)
        last_answer(page).get_by_text("word2").wait_for()
        page.get_by_role("button", name="Delete “slow”").first.click()
        page.wait_for_selector("#send", state="visible")
        assert page.inner_text("#announce") == "Stopped."
        assert page.locator("#chat-list li").count() == 1


def shows_what_went_wrong(browser, server):
    cases = {
        "busy": "Too many wait. Try again in 7 s.",
        "refuse": "top_p must be at most 1.",
        "no json": "<h1>Bad gateway</h1>",
        "fails": "The engine failed.",
        "cut": "The answer broke off: the server closed the connection.",
    }
    with open_page(browser, server.url, [FAILED_LOAD], viewport={"width": 1000, "height": 800}) as page:
        for question, message in cases.items():
            ask(page, question)
            assert last_answer(page).get_by_role("alert").inner_text() == message, question
            assert page.inner_text("#announce") == message
            # The field that the server refused is there to be changed.
            assert page.is_visible("#settings") == (question == "refuse")
            if question == "refuse":
                page.click("#show-settings")
        assert last_answer(page).locator(".body").inner_text() == "half a sentence"
        ask(page, "fine")
        contents = [message["content"] for message in server.requests[-1]["messages"]]
        assert contents == ["fails", "half an ans", "cut", "half a sentence", "fine"], contents
        assert page.get_by_role("button", name="Regenerate").count() == 1
        page.get_by_role("button", name="Regenerate").click()
        page.wait_for_selector("#stop", state="hidden")
        assert server.requests[-1]["messages"] == server.requests[-2]["messages"]


def tells_that_nobody_answers(browser, server):
    with open_page(browser, server.url, [FAILED_LOAD]) as page:
        page.context.set_offline(True)
        ask(page, "anyone")
        assert "does not answer" in last_answer(page).get_by_role("alert").inner_text()


def asks_for_the_key(browser, server):
    with MockServer(key="s3cret") as closed, open_page(browser, closed.url, [FAILED_LOAD]) as page:
        page.wait_for_selector("#key-form", state="visible")
        assert page.evaluate("document.activeElement.id") == "key"
        assert page.is_disabled("#send")
        assert page.inner_text("#trouble") == "This server wants an API key."
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The server does not take this key.").wait_for()
        assert page.is_visible("#key-form")
        page.fill("#key", "s3cret")
        page.click("text=Use key")
        page.wait_for_selector("#key-form", state="hidden")
        ask(page, "hello")
        assert "You said: hello" in last_answer(page).inner_text()
        assert page.evaluate("Object.values(sessionStorage)") == ["s3cret"]
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        wait_until_ready(page)
        closed.key = "changed"
        ask(page, "again")
        assert page.is_visible("#key-form")


def folds_reasoning(browser, server):
    with open_page(browser, server.url) as page:
        ask(page, "thinks")
        answer = last_answer(page)
        assert answer.locator(".markdown").inner_text() == "Four."
        assert not answer.locator(".reasoning").is_visible()
        answer.get_by_text("Reasoning", exact=True).click()
        assert answer.locator(".reasoning").inner_text() == "Let me see. <b>2 + 2</b>"
        assert "1,024 of 1,200 prompt tokens from the cache" in answer.locator(".stats").inner_text()
        ask(page, "next")
        reasoning = "Let me see. <b>2 + 2</b>"
        turn = {"role": "assistant", "content": "Four.", "reasoning_content": reasoning}
        assert server.requests[-1]["messages"][1] == turn


def sends_the_settings(browser, server):
    with open_page(browser, server.url) as page:
        assert page.get_attribute("#setting-temperature", "placeholder") == "0.6"
        assert page.get_attribute("#setting-max_tokens", "placeholder") == "32768"
        values = {
            "temperature": 0.25, "top_p": 0.9, "top_k": 0, "min_p": 0.05, "max_tokens": 12, "seed": 7,
            "repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 2,
        }  # fmt: skip
        for name, value in values.items():
            page.fill(f"#setting-{name}", str(value))
        page.fill("#system-prompt", "Be brief.")
        page.select_option("#thinking", "off")
        page.select_option("#kv-cache", "turbo 3")
        ask(page, "set")
        request = server.requests[-1]
        assert {name: request[name] for name in values} == values
        assert request["messages"][0] == {"role": "system", "content": "Be brief."}
        assert request["chat_template_kwargs"] == {"enable_thinking": False}
        assert request["kv_cache"] == {"method": "turbo", "bits": 3}

        asked = len(server.requests)
        page.fill("#setting-top_p", "1.5")
        ask(page, "invalid")
        assert len(server.requests) == asked
        assert page.evaluate("document.activeElement.id") == "setting-top_p"
        page.click("#reset-settings")
        ask(page, "invalid")
        assert set(server.requests[-1]) == {"model", "messages", "stream", "stream_options"}


def chooses_an_adapter(browser, server):
    """On a phone and by keyboard; what is mounted may change meanwhile."""
    with open_page(browser, server.url, [FAILED_LOAD], viewport={"width": 360, "height": 740}) as page:
        page.click("#show-settings")
        assert not page.is_visible("#adapter")  # there is none
        page.keyboard.press("Escape")
        server.adapters = ["math", "team/style"]
        ask(page, "first")  # asks again what the server does
        assert "adapter" not in server.requests[-1]
        page.click("#show-settings")
        page.wait_for_selector("#adapter")
        assert page.locator("#adapter option").all_inner_texts() == ["none", "math", "team/style"]
        assert not is_wider_than_the_window(page)
        page.focus("#adapter")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Escape")
        ask(page, "second")
        assert server.requests[-1]["adapter"] == "math" and server.requests[-1]["model"] == "mock-model"
        assert last_answer(page).locator(".stats").inner_text().startswith("adapter math · ")
        server.adapters = []
        ask(page, "unmounted")
        assert server.requests[-1]["adapter"] == "math"  # what was chosen, until something else is
        assert "found no adapter 'math'" in last_answer(page).get_by_role("alert").inner_text()
        assert page.is_visible("#settings")
        wait_until(lambda: page.locator("#adapter option").all_inner_texts() == ["none", "math"])
        page.select_option("#adapter", "")
        page.keyboard.press("Escape")
        ask(page, "third")
        assert "adapter" not in server.requests[-1]
        wait_until(lambda: page.locator("#adapter-field").is_hidden())


def keeps_conversations_if_asked(browser, server):
    with open_page(browser, server.url) as page:
        ask(page, "not kept")
        assert page.evaluate("localStorage.length") == 0
        page.check("#keep")
        page.fill("#setting-seed", "5")
        ask(page, "thinks")
        page.reload()
        wait_until_ready(page)
        assert page.input_value("#setting-seed") == "5"
        page.get_by_role("button", name="not kept", exact=True).click()
        assert page.locator("article").count() == 4
        assert last_answer(page).locator(".markdown").inner_text() == "Four."
        ask(page, "go on")
        assert len(server.requests[-1]["messages"]) == 5
        page.uncheck("#keep")
        assert page.evaluate("localStorage.length") == 0
        page.check("#keep")
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#delete-chats")
        assert page.locator("article").count() == 0
        assert page.evaluate("Object.keys(localStorage).sort()") == ["optiq.keep", "optiq.settings"]


def survives_what_others_kept(browser, server):
    with open_page(browser, server.url) as page:
        page.evaluate("""() => {
          localStorage.setItem("optiq.keep", "yes");
          localStorage.setItem("optiq.settings", "{broken");
          localStorage.setItem("optiq.conversation.a", "null");
          localStorage.setItem("optiq.conversation.b", "[1]");
        }""")  # fmt: skip
        page.reload()
        wait_until_ready(page)
        ask(page, "fine")
        assert "You said: fine" in last_answer(page).inner_text()


def edits_a_question(browser, server):
    with open_page(browser, server.url) as page:
        ask(page, "one")
        ask(page, "two")
        page.get_by_role("button", name="Edit").first.click()
        assert page.input_value("#prompt") == "one"
        assert page.locator("article").count() == 0
        ask(page, "changed")
        assert [m["content"] for m in server.requests[-1]["messages"]] == ["changed"]


def shows_the_model(browser, server):
    with open_page(browser, server.url) as page:
        page.click("#show-model")
        facts = page.inner_text("#model-facts")
        for fact in ("135 M (135,000,000)", "77.0 MB", "4.563 in the file, 4.010 in the codes", "8,192 tokens", "5.8 kB"):
            assert fact in facts, fact
        rows = [row.inner_text().split("\t") for row in page.locator("#model-map tbody tr").all()]
        caches = ["affine 8 / 4, group 64", "state, 66.0 kB", "bf16, window 512", "that of layer 2", "turbo 3.5 / dense"]
        assert [row[-1] for row in rows] == caches, rows
        assert [cell.strip() for cell in rows[0][:4]] == ["0", "4", "8", "3"], rows[0]
        assert page.locator("#model-map td.b3").get_attribute("title") == "mlp.up_proj: 3 bits, group 64, 3.0 kB"
        assert "8 bits, 7.0 kB" in page.inner_text("#model-legend")
        page.keyboard.press("Escape")
        assert not page.is_visible("#model")


def shows_what_the_server_does(browser, server):
    with open_page(browser, server.url) as page:
        wait_until(lambda: page.inner_text("#live-running") == "1")
        assert page.inner_text("#live-waiting") == "2"
        assert page.inner_text("#live-kv") == "250.0 MB of 1.0 GB"
        assert page.inner_text("#live-hits") == "25 % of 400 prompt tokens"
        assert page.inner_text("#live-preemptions") == "7"
        assert page.inner_text("#live-first") == "–"
        ask(page, "hello")
        assert page.inner_text("#live-first").startswith("after ")
        bar = page.locator("#live-kv-bar").evaluate("bar => bar.value / bar.max")
        assert abs(bar - 0.25) < 1e-9


def follows_a_long_answer(browser, server):
    """40 kB, 10 k tokens in 2,500 events: shown while they come, and quickly."""
    lines = [f"{i}. item *{i}* of `{i}`\n" + ("\n```\ncode\n```\n\n" if i % 50 == 0 else "") for i in range(1500)]
    server.answers["long"] = "".join(lines)
    server.answers["wide"] = "x" * 10_000 + " " + "`" + "y" * 5_000 + "`\n\n```\n" + "z" * 5_000 + "\n```\n"
    with open_page(browser, server.url, viewport={"width": 360, "height": 740}) as page:
        started = time.monotonic()
        ask(page, "long")
        seconds = time.monotonic() - started
        assert seconds < 60, seconds
        assert last_answer(page).locator("li").count() == 1500
        box = page.locator("#transcript")
        assert box.evaluate("b => b.scrollHeight - b.scrollTop - b.clientHeight") < 60
        ask(page, "wide")
        assert not is_wider_than_the_window(page)


def works_by_keyboard(browser, server):
    with open_page(browser, server.url) as page:
        wait_until_ready(page)
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two")
        page.keyboard.press("Enter")
        page.wait_for_selector("article.assistant")
        page.wait_for_selector("#stop", state="hidden")
        assert server.requests[-1]["messages"][0]["content"] == "one\ntwo"
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.reload()
        wait_until_ready(page)
        order = focus_order(page)
        wanted = ["show-chats", "show-model", "show-settings", "new-chat", "keep", "transcript", "prompt", "system-prompt"]
        assert [name for name in order if name in wanted] == wanted, order
        page.focus("#show-model")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "close-model"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "show-model"


def focus_order(page):
    """Ids in the order of the Tab key, from the start of the page."""
    page.evaluate("document.activeElement.blur()")
    page.locator(".skip").focus()
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id")
        if name in seen and name:
            break
        seen.append(name)
    return seen


def names_its_controls(browser, server):
    with open_page(browser, server.url) as page:
        ask(page, "hello")
        unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, meter")]
          .filter((c) => !(c.labels?.length || c.getAttribute("aria-label") || c.textContent.trim()))
          .map((c) => c.outerHTML)""")  # fmt: skip
        assert unnamed == [], unnamed
        assert page.inner_text("#announce") == "The answer is complete."
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        wait_until(lambda: page.evaluate("document.activeElement.id") == "prompt")


def fits_a_phone(browser, server):
    with open_page(browser, server.url, viewport={"width": 360, "height": 740}) as page:
        assert not page.is_visible("#chats") and not page.is_visible("#settings")
        ask(page, "hello")
        assert not is_wider_than_the_window(page)
        for column in ("chats", "settings"):
            page.click(f"#show-{column}")
            assert page.is_visible(f"#{column}")
            assert page.get_attribute(f"#show-{column}", "aria-expanded") == "true"
            assert not is_wider_than_the_window(page)
            page.keyboard.press("Escape")
            assert not page.is_visible(f"#{column}")
        page.click("#show-model")
        assert not is_wider_than_the_window(page)


def has_contrast_in_light_and_dark(browser, server):
    backgrounds = {}
    for scheme in ("light", "dark"):
        with open_page(browser, server.url, color_scheme=scheme) as page:
            ask(page, "hello")
            page.click("#show-model")
            selectors = ["body", "#keys", ".stats", "article.user .body", "#send", ".map .kv", "dt"]
            selectors += [f".chips .b{bits}" for bits in (2, 3, 4, 5, 6, 8, 16)]
            for selector in selectors:
                ratio = page.locator(selector).first.evaluate(CONTRAST)
                assert ratio >= 4.5, (scheme, selector, ratio)
            backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert backgrounds["light"] != backgrounds["dark"]


# Contrast of text and what lies behind it (WCAG 2.2, 1.4.3: 4.5 for text).
CONTRAST = """
(element) => {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  let behind = element;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) {
    behind = behind.parentElement;
  }
  const a = luminance(numbers(getComputedStyle(element).color));
  const b = luminance(numbers(getComputedStyle(behind).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
"""


CHECKS = (
    answers_turn_by_turn, stops, shows_what_went_wrong, tells_that_nobody_answers, asks_for_the_key, folds_reasoning,
    sends_the_settings, chooses_an_adapter, keeps_conversations_if_asked, survives_what_others_kept,
    edits_a_question, shows_the_model, shows_what_the_server_does, follows_a_long_answer, works_by_keyboard, names_its_controls, fits_a_phone,
    has_contrast_in_light_and_dark,
)  # fmt: skip


def main():
    with MockServer() as server, chromium() as browser:
        for check in CHECKS:
            started = time.monotonic()
            check(browser, server)
            print(f"{check.__name__}: {time.monotonic() - started:.1f} s", flush=True)


main()
