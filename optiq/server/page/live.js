/** What the server does now, for all who use it: asked for again and again while
 * the page is visible. */

import { describeModel } from "./api.js";
import { byId, svg } from "./dom.js";
import { formatBytes, formatCount, formatRate, formatSeconds } from "./format.js";

const BUSY = 1000; // milliseconds between two questions while somebody is served
const IDLE = 10_000;
const POINTS = 60; // of the curve

export class LiveStatus {
  /** onModel hears each time what the server says of the model. */
  constructor(onModel) {
    this.onModel = onModel;
    this.last = null; // {time, answerTokens}
    this.rates = []; // tokens per second, oldest first
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.#schedule(0));
  }

  start(status) {
    this.#show(status);
    this.#schedule(BUSY);
  }

  /** Asks at once: something has begun or ended. */
  refresh() {
    if (this.last !== null) {
      this.#schedule(0);
    }
  }

  /** How long this page waited for an answer's first token. */
  showFirstToken(seconds) {
    byId("live-first").textContent = `after ${formatSeconds(seconds)}`;
  }

  #schedule(delay) {
    clearTimeout(this.timer);
    if (!document.hidden && this.last !== null) {
      this.timer = setTimeout(() => this.#ask(), delay);
    }
  }

  async #ask() {
    let delay = IDLE;
    try {
      const model = await describeModel();
      const { status } = model;
      this.#show(status);
      this.onModel(model);
      delay = status.running + status.waiting > 0 ? BUSY : IDLE;
    } catch (error) {
      byId("live-state").textContent = error.message;
    }
    this.#schedule(delay);
  }

  #show(status) {
    const rate = this.#rate(status.answer_tokens);
    byId("live-state").textContent = status.running + status.waiting > 0 ? "" : "idle";
    byId("live-rate").textContent = formatRate(rate);
    byId("live-running").textContent = formatCount(status.running);
    byId("live-waiting").textContent = formatCount(status.waiting);
    byId("live-kv").textContent = `${formatBytes(status.kv_bytes)} of ${formatBytes(status.kv_max_bytes)}`;
    byId("live-kv-bar").max = status.kv_max_bytes;
    byId("live-kv-bar").value = status.kv_bytes;
    byId("live-prefix").textContent = formatBytes(status.prefix_bytes);
    byId("live-hits").textContent = describeHits(status);
    byId("live-preemptions").textContent = formatCount(status.preemptions);
    this.#draw(rate);
  }

  /** Tokens per second since the last answer. */
  #rate(answerTokens) {
    const time = performance.now();
    const since = this.last;
    this.last = { time, answerTokens };
    return since === null ? 0 : Math.max(0, (1000 * (answerTokens - since.answerTokens)) / (time - since.time));
  }

  #draw(rate) {
    this.rates = [...this.rates, rate].slice(-POINTS);
    const top = Math.max(...this.rates, 1);
    const points = this.rates.map((value, i) =>
      `${(100 * (i + POINTS - this.rates.length)) / (POINTS - 1)},${29 - (28 * value) / top}`);
    byId("live-curve").replaceChildren(svg("polyline", { points: points.join(" ") }));
  }
}

/** The share of the prompts' tokens that did not have to be computed. */
function describeHits({ prompt_tokens: computed, cached_tokens: cached }) {
  const all = computed + cached;
  return all === 0 ? "none yet" : `${((100 * cached) / all).toFixed(0)} % of ${formatCount(all)} prompt tokens`;
}
