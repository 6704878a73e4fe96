/** What the page asks of the server. */

import { eventData } from "./events.js";

const KEY = "optiq.key"; // in sessionStorage: gone with the tab

/** What the server, or the way to it, answered instead. */
export class ServerError extends Error {
  constructor(message, { status = 0, field = null, retryAfter = null } = {}) {
    super(message);
    this.status = status; // 0: no answer, or one that broke off
    this.field = field; // of the request, which the server refused
    this.retryAfter = retryAfter; // seconds
  }

  get needsKey() {
    return this.status === 401;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The model and what the server does now. */
export async function describeModel() {
  const response = await ask("/v1/optiq/model", { method: "GET" });
  return response.json();
}

/**
 * Streams the answer to a chat: {reasoning}, {content}, {finish}, {usage}, in
 * the order in which they come. Throws ServerError; an AbortError when `signal`
 * stops it.
 */
export async function* streamChat(request, signal) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of readEvents(response, signal)) {
    if (data === "[DONE]") {
      return;
    }
    const event = JSON.parse(data);
    if (event.error) {
      throw new ServerError(event.error.message);
    }
    yield* partsOf(event);
  }
  throw new ServerError("The answer broke off: the server closed the connection.");
}

async function* readEvents(response, signal) {
  try {
    yield* eventData(response.body);
  } catch (error) {
    throw signal.aborted ? error : new ServerError("The answer broke off: the connection was lost.");
  }
}

function* partsOf(event) {
  const choice = event.choices?.[0];
  const delta = choice?.delta ?? {};
  const reasoning = delta.reasoning_content ?? delta.reasoning;
  if (reasoning) {
    yield { reasoning };
  }
  if (delta.content) {
    yield { content: delta.content };
  }
  if (choice?.finish_reason) {
    yield { finish: choice.finish_reason };
  }
  if (event.usage) {
    yield { usage: event.usage };
  }
}

/** Throws ServerError unless the answer is 200. */
async function ask(path, options) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) {
    headers.authorization = `Bearer ${key}`;
  }
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError("The server does not answer. Is it running?");
  }
  if (!response.ok) {
    throw await errorOf(response);
  }
  return response;
}

async function errorOf(response) {
  const { status } = response;
  const text = await response.text();
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    error = { message: text.slice(0, 500) }; // of something between us and the server
  }
  const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
  return new ServerError(error.message || `The server answered ${status}.`, {
    status,
    field: error.param ?? null,
    retryAfter: Number.isNaN(seconds) ? null : seconds,
  });
}
