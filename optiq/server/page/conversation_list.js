/** The column of conversations, and whether they are kept. */

import { button, byId, element } from "./dom.js";

export class ConversationList {
  /** actions: open(conversation), removed() after the shown one was deleted. */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.shown = null;
    const keep = byId("keep");
    keep.checked = store.keeps;
    keep.addEventListener("change", () => store.setKeeps(keep.checked));
    byId("delete-chats").addEventListener("click", () => {
      if (confirm("Delete all conversations?")) {
        store.removeAll();
        actions.removed();
      }
    });
  }

  /** The list, with the open conversation marked. */
  show(id) {
    this.shown = id;
    const conversations = this.store.list();
    byId("delete-chats").disabled = conversations.length === 0;
    byId("chat-list").replaceChildren(...conversations.map((conversation) => this.#item(conversation)));
  }

  #item(conversation) {
    const { id, title } = conversation;
    return element("li", {},
      button(title, () => this.actions.open(conversation), { class: "chat", "aria-current": id === this.shown }),
      button("×", () => this.#remove(id), { class: "icon", "aria-label": `Delete “${title}”` }));
  }

  #remove(id) {
    this.store.remove(id);
    if (id === this.shown) {
      this.actions.removed();
    } else {
      this.show(this.shown);
    }
  }
}
