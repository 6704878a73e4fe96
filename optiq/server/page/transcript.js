/** The conversation on the screen. */

import { button, copyButton, element } from "./dom.js";
import { formatCount, formatRate, formatSeconds } from "./format.js";
import { GrowingMarkdown } from "./markdown.js";

const NEAR_END = 60; // pixels: who is this near follows what grows

const ENDINGS = {
  length: "ended at the most tokens",
  stopped: "stopped",
  cancelled: "ended by the server",
};

/** One message, or the answer that grows. */
class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.body = element("div", { class: "body" });
    this.footer = element("footer", {});
    const name = message.role === "user" ? "You" : "Model";
    this.node = element("article", { class: `message ${message.role}`, "aria-label": name },
      element("h2", { class: "hidden" }, name), this.body, this.footer);
    this.actions = actions;
    this.text = null;
    this.reasoning = null;
    this.#showRole();
  }

  #showRole() {
    if (this.message.role === "user") {
      this.body.append(this.message.content);
      this.footer.append(button("Edit", () => this.actions.edit(this.message)));
    } else {
      this.update();
    }
  }

  /** Shows what has come of an answer. */
  update() {
    const { content, reasoning } = this.message;
    if (reasoning) {
      this.reasoning ??= this.#addReasoning();
      this.reasoning.textContent = reasoning;
    }
    if (content) {
      this.text ??= new GrowingMarkdown(this.body.appendChild(element("div", { class: "markdown" })));
      this.text.update(content);
    }
  }

  #addReasoning() {
    const text = element("div", { class: "reasoning" });
    this.body.prepend(element("details", {}, element("summary", {}, "Reasoning"), text));
    return text;
  }

  /** The answer has ended, well or not. */
  finish({ isLast }) {
    const { content, error, stats } = this.message;
    this.footer.replaceChildren();
    if (error) {
      this.footer.append(element("p", { class: "error", role: "alert" }, error));
    }
    if (content) {
      this.footer.append(copyButton("Copy this answer", this.body, content));
    }
    if (isLast) {
      const label = error ? "Try again" : "Regenerate";
      this.footer.append(button(label, () => this.actions.regenerate(this.message)));
    }
    if (stats) {
      this.footer.append(element("span", { class: "stats" }, describeStats(stats)));
    }
  }
}

/** "64 tokens · 41.2 tokens/s · first after 0.12 s · 1,024 of 1,100 from the cache" */
function describeStats({ tokens, rate, firstAfter, promptTokens, cachedTokens, finish, adapter }) {
  const parts = [];
  if (adapter) {
    parts.push(`adapter ${adapter}`);
  }
  if (tokens) {
    parts.push(`${formatCount(tokens)} tokens`);
  }
  if (rate) {
    parts.push(`${formatRate(rate)} tokens/s`);
  }
  if (firstAfter) {
    parts.push(`first after ${formatSeconds(firstAfter)}`);
  }
  if (cachedTokens) {
    parts.push(`${formatCount(cachedTokens)} of ${formatCount(promptTokens)} prompt tokens from the cache`);
  }
  if (ENDINGS[finish]) {
    parts.push(ENDINGS[finish]);
  }
  return parts.join(" · ");
}

export class Transcript {
  /** actions: edit(message), regenerate(message). */
  constructor(container, actions) {
    this.container = container;
    this.actions = actions;
    this.last = null; // the view of the last message
    this.growing = null; // the view of the answer that comes
    this.pending = 0; // of setTimeout
    this.cost = 0; // milliseconds that the last update took
  }

  /** Shows a conversation from its start, or what welcomes to an empty one. */
  show(messages, welcome) {
    this.container.replaceChildren(...(messages.length === 0 ? [welcome] : []));
    this.last = null;
    this.growing = null;
    for (const message of messages) {
      this.#append(message);
      if (message.role === "assistant") {
        this.last.finish({ isLast: message === messages.at(-1) });
      }
    }
    this.#scrollToEnd();
  }

  #append(message) {
    const view = new MessageView(message, this.actions);
    this.container.append(view.node);
    this.last = view;
    return view;
  }

  /** A question, below the rest. */
  add(message) {
    if (this.last === null) {
      this.container.replaceChildren(); // the welcome
    } else if (this.last.message.role === "assistant") {
      this.last.finish({ isLast: false });
    }
    this.#append(message);
  }

  /** Begins an answer that grows: call `grew` when it did, `ended` once. */
  begin(message) {
    this.container.setAttribute("aria-busy", "true");
    this.growing = this.#append(message);
    this.growing.node.classList.add("waiting");
    this.#scrollToEnd();
  }

  /** Shows the growth at the next frame, or later when that takes long: the
   * page spends at most a third of its time on it. */
  grew() {
    if (this.pending === 0) {
      this.pending = setTimeout(() => requestAnimationFrame(() => this.#update()), 2 * this.cost);
    }
  }

  #update() {
    this.pending = 0;
    if (this.growing === null) {
      return;
    }
    const started = performance.now();
    const follows = this.#isNearEnd();
    this.growing.node.classList.remove("waiting");
    this.growing.update();
    if (follows) {
      this.#scrollToEnd();
    }
    this.cost = performance.now() - started;
  }

  /** The answer has ended; it may have left the screen before. */
  ended() {
    this.container.removeAttribute("aria-busy");
    if (this.growing === null) {
      return;
    }
    const follows = this.#isNearEnd();
    this.growing.update();
    this.growing.node.classList.remove("waiting");
    this.growing.finish({ isLast: true });
    this.growing = null;
    if (follows) {
      this.#scrollToEnd();
    }
  }

  #isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.container;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  #scrollToEnd() {
    this.container.scrollTop = this.container.scrollHeight;
  }
}
