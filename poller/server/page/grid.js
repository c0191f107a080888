// A table of any length: one pool of row elements, of which only what can be seen exists.

import { el, setAttribute } from "./dom.js";

const BEYOND = 8; // rows above and below what is seen, so that a quick scroll shows no gap

/**
 * @template T
 * @typedef {object} Shape
 * @property {string} label what the table holds
 * @property {readonly {key: string, title: string, sort?: boolean, number?: boolean}[]} columns
 * @property {(item: T) => string} key
 * @property {(item: T) => unknown} version changes when the row has to be filled anew
 * @property {() => HTMLElement} make an empty row
 * @property {(row: any, item: T) => void} fill everything in it
 * @property {(row: any, item: T) => void} tick only what depends on time
 * @property {(item: T) => void} open Enter, or a click
 * @property {(column: string) => void} sort
 */

/** @template T */
export class Grid {
  #shape;
  #items = /** @type {T[]} */ ([]);
  #slots = /** @type {any[]} */ ([]);
  #active = /** @type {string|null} */ (null);
  #height = 36;
  #pointed_ms = -Infinity;

  /** @param {Element} parent @param {Shape<T>} shape */
  constructor(parent, shape) {
    this.#shape = shape;
    this.heads = new Map(shape.columns.map((column) => [column.key, this.#head(column)]));
    this.head = el("div", { role: "rowgroup", class: "grid-head" },
      el("div", { role: "row", class: "row", "aria-rowindex": 1 }, ...this.heads.values()));
    this.body = el("div", { role: "rowgroup", class: "grid-rows" });
    this.element = el("div", {
      role: "grid", class: "grid", tabindex: 0, "aria-label": shape.label, "aria-readonly": "true",
      "aria-colcount": shape.columns.length, "aria-rowcount": 1,
    }, this.head, this.body);
    parent.append(this.element);
    this.empty = el("p", { class: "empty", hidden: true });
    parent.append(this.empty);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => this.#activate(this.#isOnScreen(this.#place()) ? this.#place() : this.#firstSeen()));
    this.body.addEventListener("click", (event) => this.#click(event));
    this.body.addEventListener("pointermove", (event) => {
      this.#pointed_ms = event.timeStamp;
    });
    addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(this.element);
    addEventListener("resize", () => this.#measure());
    this.#measure();
  }

  #head({ key, title, sort, number }) {
    const name = sort
      ? el("button", { type: "button", class: "sort", tabindex: 0, onclick: () => this.#shape.sort(key) }, title)
      : title;
    return el("div", { role: "columnheader", class: `cell is-${key}${number ? " is-number" : ""}` }, name);
  }

  #measure() {
    const height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row-height")) || 36;
    if (height !== this.#height) {
      this.#height = height;
      for (const slot of this.#slots) slot.index = -1;
    }
    this.draw();
  }

  /** Whether somebody is about to click: then the order had better not change under the pointer. */
  get isPointedAt() {
    return performance.now() - this.#pointed_ms < 1_500;
  }

  /** Say by which column the rows are sorted. @param {string} key @param {boolean} descending */
  showOrder(key, descending) {
    for (const [name, head] of this.heads)
      setAttribute(head, "aria-sort", name === key ? (descending ? "descending" : "ascending") : null);
  }

  /** Show these rows, in this order. @param {T[]} items @param {string} none what to say if there is none */
  show(items, none) {
    this.#items = items;
    this.body.style.height = `${items.length * this.#height}px`;
    setAttribute(this.element, "aria-rowcount", String(items.length + 1));
    this.empty.hidden = items.length > 0;
    this.empty.textContent = none;
    this.draw();
  }

  #seen() {
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.#height) - BEYOND);
    const last = Math.min(this.#items.length, Math.ceil((innerHeight - top) / this.#height) + BEYOND);
    return [first, Math.max(first, last)];
  }

  #firstSeen() {
    const hidden = this.head.getBoundingClientRect().bottom - this.body.getBoundingClientRect().top;
    return Math.max(0, Math.ceil(hidden / this.#height - 0.05));
  }

  #isOnScreen(index) {
    const bottom = this.body.getBoundingClientRect().top + (index + 1) * this.#height;
    return index >= this.#firstSeen() && bottom <= innerHeight + 1;
  }

  /** Bring what can be seen up to date. */
  draw() {
    if (!this.element.isConnected || !this.element.offsetParent) return;
    const [first, last] = this.#seen();
    const needed = last - first;
    // Rows keep their elements while scrolling: row i lies in slot i modulo the pool's size.
    if (needed > this.#slots.length || needed + 4 * BEYOND < this.#slots.length) this.#resize(needed + BEYOND);
    const size = this.#slots.length;
    for (let index = first; index < Math.min(this.#items.length, first + size); index += 1)
      this.#put(this.#slots[index % size], index);
    for (const slot of this.#slots)
      slot.element.hidden = !(slot.index >= first && slot.index < Math.min(this.#items.length, first + size));
    setAttribute(this.element, "aria-activedescendant", this.#activeElement()?.id ?? null);
  }

  #resize(size) {
    while (this.#slots.length > size) this.#slots.pop().element.remove();
    while (this.#slots.length < size) {
      const element = this.#shape.make();
      element.id = `row-${this.#slots.length}`;
      this.#slots.push({ element, index: -1, key: "", version: undefined });
      this.body.append(element);
    }
    for (const slot of this.#slots) slot.index = -1;
  }

  #put(slot, index) {
    const item = this.#items[index];
    if (slot.index !== index) {
      slot.index = index;
      slot.element.style.transform = `translateY(${index * this.#height}px)`;
      slot.element.setAttribute("aria-rowindex", String(index + 2));
    }
    const [key, version] = [this.#shape.key(item), this.#shape.version(item)];
    if (slot.version !== version || slot.key !== key) {
      const isUpdate = slot.key === key;
      [slot.key, slot.version] = [key, version];
      this.#shape.fill(slot.element, item);
      slot.element.classList.toggle("is-fresh", isUpdate);
    }
    this.#shape.tick(slot.element, item);
    slot.element.classList.toggle("is-active", key === this.#active);
    setAttribute(slot.element, "aria-selected", key === this.#active ? "true" : "false");
  }

  #place() {
    return this.#active === null ? -1 : this.#items.findIndex((item) => this.#shape.key(item) === this.#active);
  }

  #activeElement() {
    return this.#slots.find((slot) => !slot.element.hidden && slot.key === this.#active)?.element;
  }

  #activate(index) {
    if (!this.#items.length) return;
    const place = Math.min(Math.max(0, index), this.#items.length - 1);
    this.#active = this.#shape.key(this.#items[place]);
    this.#reveal(place);
    this.draw();
  }

  /** Give the table the keyboard. It is taller than any window, so the page must not scroll to all of it. */
  focus() {
    this.element.focus({ preventScroll: true });
  }

  #reveal(index) {
    const top = this.body.getBoundingClientRect().top + index * this.#height;
    const ceiling = Math.max(0, this.head.getBoundingClientRect().bottom);
    if (top < ceiling) scrollBy({ top: top - ceiling, behavior: "instant" });
    else if (top + this.#height > innerHeight) scrollBy({ top: top + this.#height - innerHeight, behavior: "instant" });
  }

  #key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(innerHeight / this.#height) - 4);
    const place = this.#place();
    const to = {
      ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page,
      Home: 0, End: this.#items.length - 1, j: place + 1, k: place - 1,
    }[event.key];
    if (to !== undefined) this.#activate(to);
    else if (event.key === "Enter" && place >= 0) this.#shape.open(this.#items[place]);
    else return;
    event.preventDefault();
  }

  #click(event) {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
    if (event.target.closest("button") || String(getSelection())) return;
    const slot = this.#slots.find(({ element }) => element.contains(event.target));
    if (!slot) return;
    event.preventDefault();
    this.#active = slot.key;
    this.#shape.open(this.#items[slot.index]);
  }
}
