/** The form of what a request may say beside its messages. */

import { byId, element } from "./dom.js";

/** A field left empty is left to the server, which also has the last word on
 * ranges. */
const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, hint: "0 takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k", min: 0, step: 1, hint: "0 is off" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01 },
  { name: "max_tokens", label: "Most tokens", min: 1, step: 1 },
  { name: "seed", label: "Seed", min: 0, step: 1, hint: "empty draws anew each time" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.01, max: 10, step: 0.01, hint: "1 is off" },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1 },
];

export class SettingsForm {
  /** `settings` as `values` gives them; onChange hears of each change. */
  constructor(settings, onChange) {
    this.system = byId("system-prompt");
    this.thinking = byId("thinking");
    this.cache = byId("kv-cache");
    this.adapter = byId("adapter");
    this.mounted = []; // ids of the server's adapters
    this.inputs = new Map(FIELDS.map((field) => [field.name, this.#addField(field)]));
    this.#fill(settings);
    byId("settings-form").addEventListener("input", () => onChange(this.values()));
    byId("reset-settings").addEventListener("click", () => {
      this.#fill({});
      onChange(this.values());
    });
  }

  #addField(field) {
    const id = `setting-${field.name}`;
    const hintId = field.hint ? `${id}-hint` : null;
    const { min, max = null, step } = field;
    const input = element("input", {
      type: "number", id, min, max, step: step === 1 ? 1 : "any", placeholder: "default", "aria-describedby": hintId,
    });
    byId("sampler").append(element("div", { class: "field" },
      element("label", { for: id }, field.label),
      input,
      hintId ? element("small", { id: hintId }, field.hint) : null));
    return input;
  }

  #fill(settings) {
    this.system.value = settings.system ?? "";
    this.thinking.value = settings.thinking ?? "";
    this.cache.value = settings.cache ?? "";
    this.#fillAdapters(settings.adapter ?? "");
    for (const [name, input] of this.inputs) {
      input.value = settings[name] ?? "";
    }
  }

  /** One that was chosen and is not mounted any more stays chosen: whoever asks
   * hears of it from the server. */
  #fillAdapters(chosen) {
    const ids = chosen === "" || this.mounted.includes(chosen) ? this.mounted : [...this.mounted, chosen];
    const shown = [...this.adapter.options].map((option) => option.value);
    if (shown.join() !== ["", ...ids].join()) { // else an open list would close
      this.adapter.replaceChildren(
        element("option", { value: "" }, "none"), ...ids.map((id) => element("option", { value: id }, id)));
    }
    this.adapter.value = chosen;
    byId("adapter-field").hidden = ids.length === 0;
  }

  /** What the server has mounted now. */
  showAdapters(ids) {
    this.mounted = ids;
    this.#fillAdapters(this.adapter.value);
  }

  /** What the server takes where a field is empty. */
  showDefaults(defaults) {
    for (const [name, input] of this.inputs) {
      if (defaults[name] !== undefined && defaults[name] !== null) {
        input.placeholder = String(Number(defaults[name].toPrecision(6)));
      }
    }
  }

  /** The fields that are not empty, by name. */
  values() {
    const values = {};
    for (const [name, input] of this.inputs) {
      if (input.value !== "") {
        values[name] = Number(input.value);
      }
    }
    if (this.system.value.trim() !== "") {
      values.system = this.system.value;
    }
    if (this.thinking.value !== "") {
      values.thinking = this.thinking.value;
    }
    if (this.cache.value !== "") {
      values.cache = this.cache.value;
    }
    if (this.adapter.value !== "") {
      values.adapter = this.adapter.value;
    }
    return values;
  }

  /** The input of a request's field, or undefined. */
  inputOf(name) {
    return name === "adapter" ? this.adapter : this.inputs.get(name);
  }

  /** The first input whose value is out of its range, or undefined. */
  firstInvalid() {
    return [...this.inputs.values()].find((input) => !input.checkValidity());
  }
}

/** The request that these settings and messages make. */
export function chatRequest(model, { system, thinking, cache, ...fields }, messages) {
  const request = { model, ...fields, messages: answered(messages) };
  if (system) {
    request.messages.unshift({ role: "system", content: system });
  }
  if (thinking) {
    request.chat_template_kwargs = { enable_thinking: thinking === "on" };
  }
  if (cache) {
    const [method, bits] = cache.split(" ");
    request.kv_cache = bits ? { method, bits: Number(bits) } : { method };
  }
  return request;
}

/** What the model is to see: a question without an answer, because it failed or
 * was stopped, is left out, for roles must take turns. Reasoning goes back too:
 * templates know what of it a model may see again. */
function answered(messages) {
  const isLost = (message, i) => message.content === "" || messages[i + 1]?.content === "";
  return messages.filter((message, i) => !isLost(message, i)).map(({ role, content, reasoning }) =>
    reasoning ? { role, content, reasoning_content: reasoning } : { role, content });
}
