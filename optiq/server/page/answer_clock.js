/** How long an answer took, as far as this page and the server know. */

export class AnswerClock {
  constructor() {
    this.started = performance.now();
    this.first = 0;
    this.last = 0;
    this.pieces = 0;
    this.usage = null;
    this.timings = null; // the server's, which know nothing of the way here
    this.finish = null;
  }

  /** A piece of the answer has come. Whether it is the first. */
  tick() {
    this.last = performance.now();
    this.first ||= this.last;
    this.pieces += 1;
    return this.pieces === 1;
  }

  firstAfter() {
    return this.pieces > 0 ? (this.first - this.started) / 1000 : 0;
  }

  stats() {
    const tokens = this.usage?.completion_tokens ?? this.pieces;
    const seconds = (this.last - this.first) / 1000;
    return {
      tokens,
      rate: this.timings?.predicted_per_second ?? (seconds > 0 ? (tokens - 1) / seconds : 0),
      firstAfter: this.firstAfter(),
      promptTokens: this.usage?.prompt_tokens ?? 0,
      cachedTokens: this.usage?.prompt_tokens_details?.cached_tokens ?? 0,
      finish: this.finish,
    };
  }
}
