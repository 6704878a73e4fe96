/** The columns beside the conversation: open where there is room, else over it
 * and one at a time. */

import { byId } from "./dom.js";

const COLUMNS = [
  { id: "chats", room: matchMedia("(min-width: 900px)") },
  { id: "settings", room: matchMedia("(min-width: 1200px)") },
];

export class Drawers {
  constructor() {
    for (const { id, room } of COLUMNS) {
      this.#set(id, room.matches);
      room.addEventListener("change", () => this.#set(id, room.matches));
      byId(`show-${id}`).addEventListener("click", () => (byId(id).hidden ? this.open(id) : this.#close(id)));
      byId(id).addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !room.matches) {
          event.stopPropagation();
          this.#close(id);
        }
      });
    }
  }

  /** Opens one and goes there. */
  open(id) {
    this.closeOverlays();
    this.#set(id, true);
    byId(id).querySelector("button, input, textarea, select").focus();
  }

  #close(id) {
    this.#set(id, false);
    byId(`show-${id}`).focus();
  }

  /** Closes what lies over the conversation. */
  closeOverlays() {
    for (const { id, room } of COLUMNS) {
      if (!room.matches) {
        this.#set(id, false);
      }
    }
  }

  #set(id, open) {
    byId(id).hidden = !open;
    byId(`show-${id}`).setAttribute("aria-expanded", String(open));
  }
}
