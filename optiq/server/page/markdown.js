/**
 * Markdown as models write it, as DOM nodes: paragraphs, headings, lists,
 * quotes, tables, fenced code, rules. HTML in it is text. A newline is a line
 * break, as in chats. Indented code is left out: models indent inside lists.
 */

import { copyButton, element } from "./dom.js";
import { renderInline } from "./inline.js";

const MAX_DEPTH = 12; // of lists and quotes; what is deeper is text
// Every pattern reads a line once: models can be made to write hostile ones.
const FENCE = /^( {0,3})(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(.*)|)$/;
const DELIMITER_ROW = /^ {0,3}\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?[ \t]*)?$|^ {0,3}\|[ \t]*:?-+:?[ \t]*$/;
const BLANK = /^\s*$/;

/** The nodes of a whole text. */
export function renderMarkdown(source) {
  return renderAll(parseBlocks(source.split("\n")));
}

function renderAll(blocks) {
  return blocks.map((block) => block.render());
}

/**
 * Markdown that grows. Only its last two blocks are made anew with each update:
 * a line can still change what the line before it is, and nothing earlier.
 */
export class GrowingMarkdown {
  constructor(container) {
    this.container = container;
    this.settled = 0; // characters whose blocks are final
    this.settledNodes = 0;
  }

  /** The whole text so far. */
  update(source) {
    const lines = source.slice(this.settled).split("\n");
    const blocks = parseBlocks(lines);
    while (this.container.childNodes.length > this.settledNodes) {
      this.container.lastChild.remove();
    }
    for (const node of renderAll(blocks)) {
      this.container.append(node);
    }
    if (blocks.length > 2) {
      const keep = blocks.at(-2).start;
      this.settled += lines.slice(0, keep).reduce((sum, line) => sum + line.length + 1, 0);
      this.settledNodes += blocks.length - 2;
    }
  }
}

/** Blocks with the line where each starts and a function that makes its node. */
function parseBlocks(lines, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const block = fencedCode(lines, at) ?? oneLine(lines, at) ?? quote(lines, at, depth) ??
      list(lines, at, depth) ?? table(lines, at) ?? paragraph(lines, at, depth);
    blocks.push({ ...block, start: at });
    at = block.end;
  }
  return blocks;
}

/** What a line opens as a fence: indentation, marker, language. */
function fenceOf(line) {
  const found = FENCE.exec(line);
  const info = found && line.slice(found[0].length);
  if (!found || (found[2][0] === "`" && info.includes("`"))) {
    return null;
  }
  return { indent: found[1].length, marker: found[2], language: info.trim().split(/\s/, 1)[0] };
}

function closesFence(line, marker) {
  const found = FENCE.exec(line);
  return found !== null && found[2].startsWith(marker) && BLANK.test(line.slice(found[0].length));
}

function withoutIndent(line, most) {
  let at = 0;
  while (at < most && line[at] === " ") {
    at += 1;
  }
  return line.slice(at);
}

function fencedCode(lines, start) {
  const fence = fenceOf(lines[start]);
  if (!fence) {
    return null;
  }
  let end = start + 1;
  while (end < lines.length && !closesFence(lines[end], fence.marker)) {
    end += 1;
  }
  const code = lines.slice(start + 1, end).map((line) => withoutIndent(line, fence.indent)).join("\n");
  return { end: Math.min(end + 1, lines.length), render: () => codeBlock(code, fence.language) };
}

function codeBlock(text, language) {
  const code = element("code", {}, text);
  return element("div", { class: "code" },
    element("div", { class: "code-head" },
      element("span", {}, language || "text"), copyButton("Copy this code", code)),
    element("pre", { tabindex: 0 }, code));
}

function headingText(line, marker) {
  const text = line.trim().slice(marker.length).trim();
  let end = text.length;
  while (text[end - 1] === "#") {
    end -= 1;
  }
  return end === 0 || /\s/.test(text[end - 1]) ? text.slice(0, end).trim() : text;
}

function oneLine(lines, start) {
  const heading = HEADING.exec(lines[start]);
  if (heading) {
    // The page has h1 and h2 itself.
    const tag = `h${Math.min(6, heading[1].length + 2)}`;
    const text = headingText(lines[start], heading[1]);
    return { end: start + 1, render: () => element(tag, {}, renderInline(text)) };
  }
  return RULE.test(lines[start]) ? { end: start + 1, render: () => element("hr") } : null;
}

function quote(lines, start, depth) {
  if (!QUOTE.test(lines[start]) || depth >= MAX_DEPTH) {
    return null;
  }
  let end = start;
  while (end < lines.length && QUOTE.test(lines[end])) {
    end += 1;
  }
  const inner = lines.slice(start, end).map((line) => line.replace(QUOTE, ""));
  return {
    end,
    render: () => element("blockquote", {}, renderAll(parseBlocks(inner, depth + 1))),
  };
}

/** What a line opens as an item: its kind, where its text starts, the text. */
function itemOf(line) {
  const found = ITEM.exec(line);
  if (!found || RULE.test(line)) {
    return null;
  }
  const [, indent, marker, gap, text] = found;
  const ordered = marker.length > 1;
  return {
    kind: ordered ? marker.at(-1) : marker,
    ordered,
    number: ordered ? Number.parseInt(marker, 10) : 0,
    indent: indent.length,
    // More than four spaces belong to the text.
    content: indent.length + marker.length + (gap && gap.length <= 4 ? gap.length : 1),
    text: text ?? "",
  };
}

function list(lines, start, depth) {
  const first = itemOf(lines[start]);
  if (!first || depth >= MAX_DEPTH) {
    return null;
  }
  const items = [];
  let at = start;
  let loose = false;
  while (at < lines.length) {
    const next = itemOf(lines[at]);
    if (!next || next.kind !== first.kind || next.indent > first.indent + 3) {
      break;
    }
    const { inner, end } = itemLines(lines, at, next);
    items.push(inner);
    at = end;
    while (at < lines.length && BLANK.test(lines[at])) {
      at += 1;
    }
    const follows = at < lines.length ? itemOf(lines[at]) : null;
    if (!follows || follows.kind !== first.kind || follows.indent > first.indent + 3) {
      at = end;
      break;
    }
    loose ||= at > end;
  }
  return { end: at, render: () => listNode(first, items, loose, depth) };
}

/** The lines of one item without their indentation. */
function itemLines(lines, start, item) {
  const inner = [item.text];
  let end = start + 1;
  let blank = false;
  for (let at = end; at < lines.length; at += 1) {
    const line = lines[at];
    if (BLANK.test(line)) {
      blank = true;
      continue;
    }
    const indent = line.search(/\S/);
    const belongs = indent >= Math.min(item.content, item.indent + 2) || (!blank && !startsBlock(line));
    if (!belongs) {
      break;
    }
    while (end < at) {
      inner.push("");
      end += 1;
    }
    inner.push(line.slice(Math.min(indent, item.content)));
    end += 1;
    blank = false;
  }
  return { inner, end };
}

function listNode(first, items, loose, depth) {
  const start = first.ordered && first.number !== 1 ? first.number : null;
  return element(first.ordered ? "ol" : "ul", { start },
    items.map((inner) => element("li", {}, itemNodes(inner, loose, depth))));
}

/** A tight list's paragraphs are bare text. */
function itemNodes(inner, loose, depth) {
  const blocks = parseBlocks(inner, depth + 1);
  const spaced = loose || blocks.some((block, i) => i > 0 && block.text && BLANK.test(inner[block.start - 1]));
  return blocks.flatMap((block) => (block.text && !spaced ? renderInline(block.text) : [block.render()]));
}

function cellsOf(line) {
  const trimmed = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return trimmed.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function alignment(cell) {
  return cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start";
}

function isTable(lines, start) {
  return lines[start].includes("|") && start + 1 < lines.length && DELIMITER_ROW.test(lines[start + 1]) &&
    cellsOf(lines[start]).length === cellsOf(lines[start + 1]).length;
}

function table(lines, start) {
  if (!isTable(lines, start)) {
    return null;
  }
  const classes = cellsOf(lines[start + 1]).map((cell) => `align-${alignment(cell)}`);
  let end = start + 2;
  while (end < lines.length && !BLANK.test(lines[end]) && !startsBlock(lines[end])) {
    end += 1;
  }
  const row = (tag, line) => {
    const cells = cellsOf(line);
    return element("tr", {}, classes.map((name, i) => element(tag, { class: name }, renderInline(cells[i] ?? ""))));
  };
  return {
    end,
    render: () => element("div", { class: "table", tabindex: 0 }, element("table", {},
      element("thead", {}, row("th", lines[start])),
      element("tbody", {}, lines.slice(start + 2, end).map((line) => row("td", line))))),
  };
}

/** Whether a line ends a paragraph before it. An ordered list does when it
 * starts at 1: "1984. A novel" may be a line of prose. */
function startsBlock(line) {
  const item = itemOf(line);
  return fenceOf(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    (item !== null && item.text !== "" && (!item.ordered || item.number === 1));
}

function paragraph(lines, start, depth) {
  let end = start + 1;
  while (end < lines.length && !BLANK.test(lines[end]) && !isTable(lines, end) &&
    (depth >= MAX_DEPTH || !startsBlock(lines[end]))) {
    end += 1;
  }
  const text = lines.slice(start, end).map((line) => line.trim()).join("\n");
  return { end, text, render: () => element("p", {}, renderInline(text)) };
}
