// The feed: what sinks are told, as it happens; it stands still while somebody reads it.

import { accountPath } from "./columns.js";
import { byId, el, keyed, setText } from "./dom.js";
import { count, timeOfDay } from "./format.js";
import { happeningText } from "./words.js";

export class Feed {
  #store;
  #list = byId("feed");
  #button = byId("feed-pause");
  #isPaused = false;
  #isHovered = false;
  #shown = /** @type {any[]} */ ([]);

  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.#store = store;
    const hover = (is) => () => {
      this.#isHovered = is;
      this.#draw();
    };
    this.#list.addEventListener("pointerenter", hover(true));
    this.#list.addEventListener("pointerleave", hover(false));
    this.#button.addEventListener("click", () => {
      this.#isPaused = !this.#isPaused;
      this.#button.setAttribute("aria-pressed", String(this.#isPaused));
      this.#draw();
    });
    store.on(["happenings"], () => this.#draw());
  }

  #draw() {
    const { happenings } = this.#store;
    const isRestart = happenings.length < this.#shown.length && !happenings.length;
    if ((!this.#isPaused && !this.#isHovered) || isRestart) this.#shown = happenings;
    const last = this.#shown.at(-1)?.number ?? 0;
    const waiting = happenings.filter(({ number }) => number > last).length;
    const many = waiting >= 200 ? "200 or more" : count(waiting);
    setText(this.#button, waiting ? `${this.#isPaused ? "Go on" : "Held"}, ${many} new` : this.#isPaused ? "Go on" : "Pause");
    keyed(this.#list, [...this.#shown].reverse(), ({ number, at }) => `${number} ${at}`, make, () => {});
    this.#list.classList.toggle("is-empty", !this.#shown.length);
  }
}

function make(happening) {
  return el("li", { class: happening.kind === "status" ? `is-status is-${happening.reason}` : null },
    el("time", { datetime: happening.at }, timeOfDay(happening.at)), " ",
    el("a", { href: accountPath(happening.account), "data-inside": true }, happening.account), " ",
    el("span", {}, happeningText(happening)));
}
