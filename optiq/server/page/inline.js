/**
 * Markdown inside a block: code spans, emphasis, strikethrough, links, bare
 * addresses, escapes, line breaks. Everything else is text, HTML too. Time is
 * linear in the length of the text, and elements nest MAX_DEPTH deep at most.
 *
 * A stack of frames holds what is open: "*", "_", "~" runs and "[". What closes
 * a frame makes an element of it; what never closes becomes text again.
 */

import { element } from "./dom.js";

const MAX_DEPTH = 24;
const MAX_RUN = 6; // longer runs of "*" are decoration
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const ADDRESS = /https?:\/\/[^\s<>"`]{1,2000}/y;
const ANGLE_ADDRESS = /<(https?:\/\/[^\s<>]{1,2000})>/y;
// (address "title"), the address up to 2000 characters, with balanced parentheses one deep.
const DESTINATION = /\(\s{0,4}(?:<([^<>\n]{0,2000})>|((?:[^\s()]|\([^\s()]{0,500}\)){0,2000}))(?:\s{1,4}(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))?\s{0,4}\)/y;
const PLAIN = /[^\\`*_~[\]!<\nh]+/y;
const SPACE = /^[\s\u00a0]?$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;

/** The nodes of one block's text. */
export function renderInline(source) {
  return new Inline(source).render();
}

/** The address if it may be followed from here, else null. */
export function safeAddress(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
}

function link(address, children) {
  return element("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, children);
}

class Inline {
  constructor(source) {
    this.source = source;
    this.at = 0;
    this.frames = [{ mark: "", length: 0, children: [] }];
    this.missing = new Set(); // lengths of backtick runs that nothing closes
  }

  render() {
    while (this.at < this.source.length) {
      this.step();
    }
    while (this.frames.length > 1) {
      this.unwind();
    }
    return this.frames[0].children;
  }

  step() {
    const c = this.source[this.at];
    if (c === "\\") {
      this.escape();
    } else if (c === "`") {
      this.codeSpan();
    } else if (c === "*" || c === "_" || c === "~") {
      this.delimiters(c);
    } else if (c === "[" || (c === "!" && this.source[this.at + 1] === "[")) {
      this.openBracket(c === "!");
    } else if (c === "]") {
      this.closeBracket();
    } else if (c === "\n") {
      this.lineBreak();
    } else if (c === "<" || c === "h") {
      this.address(c);
    } else {
      this.text(this.match(PLAIN)?.[0] ?? c);
    }
  }

  /** What a sticky pattern finds here. */
  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.source);
  }

  /** Takes source that stands for itself. */
  text(text) {
    this.at += text.length;
    this.addText(text);
  }

  addText(text) {
    const { children } = this.frames.at(-1);
    if (typeof children.at(-1) === "string") {
      children[children.length - 1] += text;
    } else if (text !== "") {
      children.push(text);
    }
  }

  add(node) {
    this.frames.at(-1).children.push(node);
  }

  escape() {
    const next = this.source[this.at + 1];
    if (next !== undefined && ESCAPABLE.test(next)) {
      this.at += 2;
      this.addText(next);
    } else if (next === "\n") {
      this.at += 1;
    } else {
      this.text("\\");
    }
  }

  lineBreak() {
    this.at += 1;
    this.add(element("br"));
    while (this.source[this.at] === " ") {
      this.at += 1;
    }
  }

  runLength(c) {
    let end = this.at;
    while (this.source[end] === c) {
      end += 1;
    }
    return end - this.at;
  }

  codeSpan() {
    const length = this.runLength("`");
    const close = this.missing.has(length) ? -1 : this.closingBackticks(length);
    if (close < 0) {
      this.missing.add(length);
      this.text("`".repeat(length));
      return;
    }
    let code = this.source.slice(this.at + length, close).replaceAll("\n", " ");
    if (/^ .*[^ ].* $|^ [^ ] $/.test(code)) {
      code = code.slice(1, -1);
    }
    this.at = close + length;
    this.add(element("code", {}, code));
  }

  closingBackticks(length) {
    const run = /`+/g;
    run.lastIndex = this.at + length;
    for (let found = run.exec(this.source); found; found = run.exec(this.source)) {
      if (found[0].length === length) {
        return found.index;
      }
    }
    return -1;
  }

  /** A run of "*", "_" or "~": which sides it can close and open is CommonMark
   * 0.31, section 6.2. */
  delimiters(mark) {
    let length = this.runLength(mark);
    const before = this.source[this.at - 1] ?? "";
    const after = this.source[this.at + length] ?? "";
    this.at += length;
    const left = !SPACE.test(after) && (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
    const right = !SPACE.test(before) && (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
    const inWord = mark === "_" && left && right;
    if (length > MAX_RUN || (mark === "~" && length !== 2)) {
      this.addText(mark.repeat(length));
      return;
    }
    if (right && (!inWord || PUNCTUATION.test(after))) {
      length = this.close(mark, length);
    }
    const opens = left && (!inWord || PUNCTUATION.test(before));
    if (length > 0 && opens && this.frames.length < MAX_DEPTH) {
      this.push(mark, length);
    } else if (length > 0) {
      this.addText(mark.repeat(length));
    }
  }

  push(mark, length) {
    this.frames.push({ mark, length, children: [] });
  }

  /** Unwinds to the innermost frame of `mark`; null, and nothing unwound, where
   * there is none inside the innermost bracket. */
  innermost(mark) {
    let i = this.frames.length - 1;
    while (i > 0 && this.frames[i].mark !== mark && this.frames[i].mark !== "[") {
      i -= 1;
    }
    if (i === 0 || this.frames[i].mark !== mark) {
      return null;
    }
    while (this.frames.length > i + 1) {
      this.unwind();
    }
    return this.frames[i];
  }

  /** Closes frames of `mark` with a run of delimiters; returns what is left. */
  close(mark, length) {
    for (let frame = null; length > 0 && (frame = this.innermost(mark));) {
      const used = Math.min(2, frame.length, length);
      const tag = mark === "~" ? "del" : used === 2 ? "strong" : "em";
      frame.children = [element(tag, {}, frame.children)];
      frame.length -= used;
      length -= used;
      if (frame.length === 0) {
        this.unwind();
      }
    }
    return length;
  }

  /** Ends the innermost frame; delimiters that are left in it become text. */
  unwind() {
    const frame = this.frames.pop();
    if (frame.mark === "[") {
      this.addText(frame.image ? "![" : "[");
    } else {
      this.addText(frame.mark.repeat(frame.length));
    }
    for (const child of frame.children) {
      if (typeof child === "string") {
        this.addText(child);
      } else {
        this.add(child);
      }
    }
  }

  openBracket(image) {
    const mark = image ? "![" : "[";
    if (this.frames.length >= MAX_DEPTH) {
      this.text(mark);
      return;
    }
    this.at += mark.length;
    this.push("[", 1);
    Object.assign(this.frames.at(-1), { image, active: true });
  }

  closeBracket() {
    this.at += 1;
    const frame = this.innermost("[");
    if (!frame) {
      this.addText("]");
      return;
    }
    const found = frame.active ? this.match(DESTINATION) : null;
    const address = found && safeAddress(found[1] ?? found[2]);
    if (!address) {
      this.unwind();
      this.addText("]");
      return;
    }
    this.at += found[0].length;
    this.frames.pop();
    // An image is a link: nothing is fetched that nobody asked for.
    const inside = frame.children.length > 0 ? frame.children : [address];
    this.add(link(address, inside));
    for (const outer of this.frames) {
      outer.active = false; // links do not nest
    }
  }

  /** An address in angle brackets or a bare one, outside of links. */
  address(c) {
    const inWord = c === "h" && /\w/.test(this.source[this.at - 1] ?? "");
    const inLink = this.frames.some((frame) => frame.mark === "[");
    const found = inWord || inLink ? null : this.match(c === "<" ? ANGLE_ADDRESS : ADDRESS);
    const shown = found && (found[1] ?? withoutTail(found[0]));
    const address = found && safeAddress(shown);
    if (!address) {
      this.text(c);
      return;
    }
    this.at += c === "<" ? found[0].length : shown.length;
    this.add(link(address, [shown]));
  }
}

/** A bare address without the punctuation of the sentence around it. */
function withoutTail(address) {
  const tail = address.includes("(") ? ".,;:!?*_~'\"]" : ".,;:!?*_~'\"])";
  let end = address.length;
  while (tail.includes(address[end - 1])) {
    end -= 1;
  }
  return address.slice(0, end);
}
