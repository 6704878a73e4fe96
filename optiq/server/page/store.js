/**
 * Conversations and settings: in memory, and in this browser's localStorage
 * where the user chose to keep them. A conversation is
 * {id, title, changed, messages: [{role, content, reasoning, stats, error}]}.
 */

const KEEP = "optiq.keep";
const SETTINGS = "optiq.settings";
const CONVERSATION = "optiq.conversation.";
const TITLE_LENGTH = 48;

export class Store {
  constructor(onFull) {
    this.onFull = onFull; // the browser keeps no more
    this.keeps = localStorage.getItem(KEEP) === "yes";
    this.settings = this.keeps ? read(SETTINGS) ?? {} : {};
    this.conversations = this.keeps ? readConversations() : [];
  }

  /** Newest first. */
  list() {
    return [...this.conversations].sort((a, b) => b.changed - a.changed);
  }

  find(id) {
    return this.conversations.find((conversation) => conversation.id === id);
  }

  create() {
    return { id: newId(), title: "New conversation", changed: Date.now(), messages: [] };
  }

  /** After any change of a conversation; one without messages is not listed. */
  save(conversation) {
    const first = conversation.messages.find((message) => message.role === "user");
    if (!first) {
      this.remove(conversation.id);
      return;
    }
    conversation.title = titleOf(first.content);
    conversation.changed = Date.now();
    if (!this.find(conversation.id)) {
      this.conversations.push(conversation);
    }
    this.#write(CONVERSATION + conversation.id, conversation);
  }

  remove(id) {
    this.conversations = this.conversations.filter((conversation) => conversation.id !== id);
    localStorage.removeItem(CONVERSATION + id);
  }

  removeAll() {
    this.conversations = [];
    forget(CONVERSATION);
  }

  saveSettings(settings) {
    this.settings = settings;
    this.#write(SETTINGS, settings);
  }

  setKeeps(keeps) {
    this.keeps = keeps;
    if (!keeps) {
      forget("optiq.");
      return;
    }
    localStorage.setItem(KEEP, "yes");
    this.#write(SETTINGS, this.settings);
    for (const conversation of this.conversations) {
      this.#write(CONVERSATION + conversation.id, conversation);
    }
  }

  #write(name, value) {
    if (!this.keeps) {
      return;
    }
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch {
      this.onFull();
    }
  }
}

function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join("");
}

function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH)}…` : line;
}

function names(prefix) {
  return Object.keys(localStorage).filter((name) => name.startsWith(prefix));
}

function forget(prefix) {
  for (const name of names(prefix)) {
    localStorage.removeItem(name);
  }
}

/** What was kept under a name; null where it is not ours (any page of this
 * origin may write there). */
function read(name) {
  try {
    const value = JSON.parse(localStorage.getItem(name));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

function readConversations() {
  return names(CONVERSATION).map(read).filter((kept) => kept?.id && Array.isArray(kept.messages));
}
