/** The one place that makes elements. Strings become text, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children. An attribute that is a function is a
 * listener ("click": f); true is an empty attribute, false and null none.
 * Children are nodes, strings or arrays of them; null is left out.
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      node.addEventListener(name, value);
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  // One by one: a long answer has more children than a call may have arguments.
  for (const child of children.flat()) {
    if (child !== null) {
      node.append(child);
    }
  }
  return node;
}

/** A button with text. */
export function button(label, click, attributes = {}) {
  return element("button", { type: "button", click, ...attributes }, label);
}

export function byId(id) {
  return document.getElementById(id);
}

/** A button that copies the text of a node, or the text given; it selects the
 * node where the browser has no clipboard for this page (it has one for https
 * and loopback only). */
export function copyButton(label, node, text = node.textContent) {
  const copy = button("Copy", async () => {
    copy.textContent = await copyOrSelect(node, text);
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  copy.setAttribute("aria-label", label);
  return copy;
}

async function copyOrSelect(node, text) {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(node);
    return "Selected";
  }
}
