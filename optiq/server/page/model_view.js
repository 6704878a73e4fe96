/** The dialog that shows what the model is: sizes, bits of each matrix, caches. */

import { byId, element } from "./dom.js";
import { formatBytes, formatCount, formatParameters } from "./format.js";

/** Fills the dialog from GET /v1/optiq/model. */
export function showModel(model) {
  byId("model-facts").replaceChildren(...facts(model));
  byId("model-legend").replaceChildren(...legend(model));
  byId("model-outside").replaceChildren(...model.outside.map((part) =>
    element("li", { class: widthClass(part.bits), title: describePart(part) }, `${part.part}: ${part.bits} bits`)));
  byId("model-map").replaceChildren(mapTable(model));
}

/** The class that colors a width. */
function widthClass(bits) {
  return `b${[2, 3, 4, 5, 6, 8].includes(bits) ? bits : 16}`;
}

function facts(model) {
  const rows = [
    ["Architecture", model.model_type],
    ["Parameters", `${formatParameters(model.parameters)} (${formatCount(model.parameters)})`],
    ["Weights", formatBytes(model.file_bytes)],
    ["Bits per weight", `${model.file_bpw.toFixed(3)} in the file, ${model.mean_code_bits.toFixed(3)} in the codes`],
    ["Context", `${formatCount(model.context)} tokens`],
    ["Vocabulary", formatCount(model.vocab_size)],
    ["K/V per token", formatBytes(model.kv_bytes_per_token)],
    ["Per sequence", model.sequence_bytes > 0 ? formatBytes(model.sequence_bytes) : null],
    ["Runs on", `${model.device}, ${model.simd}, compute ${model.compute}`],
    ["Server", `OptIQ ${model.version}`],
  ];
  return rows.filter(([, value]) => value !== null)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
}

function describePart({ part, bits, group_size: group, bytes }) {
  return `${part}: ${bits} bits${group > 0 ? `, group ${group}` : ", not quantized"}, ${formatBytes(bytes)}`;
}

function legend(model) {
  const bytes = new Map();
  for (const { bits, bytes: more } of [...model.layers.flatMap((layer) => layer.parts), ...model.outside]) {
    bytes.set(bits, (bytes.get(bits) ?? 0) + more);
  }
  return [...bytes].sort(([a], [b]) => a - b).map(([bits, sum]) =>
    element("li", {}, element("i", { class: widthClass(bits) }), `${bits} bits, ${formatBytes(sum)}`));
}

/** Layers by parts, a cell a matrix; the last column is the layer's cache. */
function mapTable(model) {
  return element("table", { class: "map" },
    element("caption", { class: "hidden" }, "Bits of each matrix and format of each K/V cache, a row a layer"),
    element("thead", {}, blockRow(model.columns), nameRow(model.columns)),
    element("tbody", {}, model.layers.map((layer) => layerRow(layer, model.columns))));
}

/** "self_attn" over q, k, v and o. */
function blockRow(columns) {
  const blocks = [];
  for (const { block } of columns) {
    if (blocks.at(-1)?.block === block) {
      blocks.at(-1).span += 1;
    } else {
      blocks.push({ block, span: 1 });
    }
  }
  return element("tr", {}, element("th", {}),
    blocks.map(({ block, span }) => element("th", { colspan: span, scope: "colgroup", class: "block" }, block)),
    element("th", {}));
}

function nameRow(columns) {
  return element("tr", {}, element("th", { scope: "col" }, "layer"),
    columns.map(({ name }) => element("th", { scope: "col" }, name)),
    element("th", { scope: "col", class: "kv" }, "K/V"));
}

function layerRow(layer, columns) {
  const parts = new Map(layer.parts.map((part) => [part.part, part]));
  const cells = columns.map(({ part }) => {
    const found = parts.get(part);
    return found
      ? element("td", { class: widthClass(found.bits), title: describePart(found) }, String(found.bits))
      : element("td", { class: "none" });
  });
  return element("tr", {}, element("th", { scope: "row" }, String(layer.layer)), cells,
    element("td", { class: "kv" }, describeCache(layer.kv)));
}

/** "affine 8 / 4, group 64", "bf16", "state, 66.0 kB". */
function describeCache(kv) {
  const window = kv.window ? `, window ${formatCount(kv.window)}` : "";
  switch (kv.method) {
    case "dense":
      return (kv.bits === 16 ? "bf16" : `float${kv.bits}`) + window;
    case "state":
      return `state, ${formatBytes(kv.bytes)}`;
    case "shared":
      return `that of layer ${kv.layer}`;
    default: {
      const side = (bits) => (bits === 0 ? "dense" : String(bits));
      const group = kv.group_size ? `, group ${kv.group_size}` : "";
      return `${kv.method} ${side(kv.key_bits)} / ${side(kv.value_bits)}${group}${window}`;
    }
  }
}
