/** The page: what its parts do to each other. */

import { ServerError, describeModel, hasKey, setKey, streamChat } from "./api.js";
import { AnswerClock } from "./answer_clock.js";
import { ConversationList } from "./conversation_list.js";
import { byId, element } from "./dom.js";
import { LiveStatus } from "./live.js";
import { showModel } from "./model_view.js";
import { Drawers } from "./drawers.js";
import { SettingsForm, chatRequest } from "./settings.js";
import { Store } from "./store.js";
import { Transcript } from "./transcript.js";

class Page {
  constructor() {
    this.model = null; // GET /v1/optiq/model
    this.answering = null; // an AbortController while an answer comes
    this.store = new Store(() => this.say("This browser keeps no more: new conversations go with the page."));
    this.conversation = this.store.create();
    this.live = new LiveStatus((model) => this.settings.showAdapters(model.adapters));
    this.drawers = new Drawers();
    this.settings = new SettingsForm(this.store.settings, (values) => this.store.saveSettings(values));
    this.transcript = new Transcript(byId("transcript"), {
      edit: (message) => this.edit(message),
      regenerate: (message) => this.regenerate(message),
    });
    this.list = new ConversationList(this.store, {
      open: (conversation) => this.open(conversation),
      removed: () => this.open(this.store.create()),
    });
    this.prompt = byId("prompt");
    this.listen();
    this.open(this.conversation);
  }

  listen() {
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("new-chat").addEventListener("click", () => this.open(this.store.create()));
    byId("show-model").addEventListener("click", () => byId("model").showModal());
    byId("close-model").addEventListener("click", () => byId("model").close());
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      setKey(byId("key").value.trim());
      this.start();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.answering && !byId("model").open) {
        this.stop();
      }
    });
  }

  /** Asks what is served, and for a key where one is wanted. */
  async start() {
    try {
      this.model = await describeModel();
    } catch (error) {
      this.showTrouble(error);
      return;
    }
    byId("trouble").hidden = true;
    byId("key-form").hidden = true;
    byId("model-name").textContent = this.model.id;
    document.title = `${this.model.id} · OptIQ`;
    showModel(this.model);
    this.settings.showDefaults(this.model.defaults);
    this.settings.showAdapters(this.model.adapters);
    this.live.start(this.model.status);
    byId("show-model").disabled = false;
    byId("send").disabled = false;
    this.focusPrompt();
  }

  /** Before anything can be asked: the key is missing or wrong, or nobody
   * answers. */
  showTrouble(error) {
    byId("send").disabled = true;
    const keyTrouble = hasKey() ? "The server does not take this key." : "This server wants an API key.";
    byId("trouble").textContent = error.needsKey ? keyTrouble : error.message;
    byId("trouble").hidden = false;
    byId("key-form").hidden = !error.needsKey;
    if (error.needsKey) {
      byId("key").focus();
    }
  }

  /** For those who listen to the page. */
  say(text) {
    byId("announce").textContent = text;
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.list.show(conversation.id);
    this.showMessages();
    this.drawers.closeOverlays();
    this.focusPrompt();
  }

  showMessages() {
    this.transcript.show(this.conversation.messages, element("p", { class: "welcome" },
      "Ask the model something. What you write stays between this page and its server."));
  }

  /** Not where that would open a keyboard over the page. */
  focusPrompt() {
    if (!matchMedia("(pointer: coarse)").matches) {
      this.prompt.focus();
    }
  }

  send() {
    const content = this.prompt.value;
    if (this.answering || this.model === null || content.trim() === "" || !this.settingsAreValid()) {
      return;
    }
    this.prompt.value = "";
    const question = { role: "user", content };
    this.conversation.messages.push(question);
    this.transcript.add(question);
    this.answer();
  }

  settingsAreValid() {
    const invalid = this.settings.firstInvalid();
    if (invalid) {
      this.drawers.open("settings");
      invalid.reportValidity();
    }
    return invalid === undefined;
  }

  /** Back into the prompt; it and what followed leave the conversation. */
  edit(message) {
    this.stop();
    this.prompt.value = message.content;
    this.dropFrom(message);
    this.prompt.focus();
  }

  regenerate(message) {
    if (!this.answering && this.settingsAreValid()) {
      this.dropFrom(message);
      this.answer();
    }
  }

  dropFrom(message) {
    const { messages } = this.conversation;
    messages.splice(messages.indexOf(message));
    this.store.save(this.conversation);
    this.list.show(this.conversation.id);
    this.showMessages();
  }

  stop() {
    this.answering?.abort();
  }

  /** Answers the last message of the conversation. */
  async answer() {
    const { conversation } = this;
    const request = chatRequest(this.model.id, this.settings.values(), conversation.messages);
    const message = { role: "assistant", content: "", reasoning: "", stats: null, error: null };
    const answering = new AbortController();
    this.answering = answering;
    conversation.messages.push(message);
    this.store.save(conversation);
    this.list.show(conversation.id);
    this.transcript.begin(message);
    this.showAnswering(true);
    this.say("The model answers.");
    await this.receive(request, message, answering.signal);
    this.answering = null;
    this.showAnswering(false);
    if (this.store.find(conversation.id)) { // it may have been deleted meanwhile
      this.store.save(conversation);
      this.list.show(this.conversation.id);
    }
    this.transcript.ended();
    this.say(message.error ?? (answering.signal.aborted ? "Stopped." : "The answer is complete."));
  }

  showAnswering(answers) {
    byId("send").hidden = answers;
    byId("stop").hidden = !answers;
    this.live.refresh();
  }

  /** Adds what comes to the message, until it ends one way or another. */
  async receive(request, message, signal) {
    const clock = new AnswerClock();
    try {
      for await (const part of streamChat(request, signal)) {
        message.content += part.content ?? "";
        message.reasoning += part.reasoning ?? "";
        if (part.content || part.reasoning) {
          if (clock.tick()) {
            this.live.showFirstToken(clock.firstAfter());
          }
          this.transcript.grew();
        }
        clock.usage = part.usage ?? clock.usage;
        clock.timings = part.timings ?? clock.timings;
        clock.finish = part.finish ?? clock.finish;
      }
    } catch (error) {
      if (error.name === "AbortError") {
        clock.finish = "stopped";
      } else {
        message.error = this.explain(error);
      }
    }
    message.stats = { ...clock.stats(), adapter: request.adapter };
  }

  /** The error in words, and where to do something about it. */
  explain(error) {
    if (!(error instanceof ServerError)) {
      return `The page could not read the answer: ${error.message}`;
    }
    if (error.needsKey) {
      this.showTrouble(error);
    }
    if (this.settings.inputOf(error.field)) {
      this.drawers.open("settings");
    }
    return error.retryAfter ? `${error.message} Try again in ${error.retryAfter} s.` : error.message;
  }
}

new Page().start();
