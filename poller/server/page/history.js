// The course of an account's value, or of one asset's amount, drawn from what the history keeps.

import { scale, stepPath, ticks, timeTicks } from "./charts.js";
import { el, setAttribute, setText, svg } from "./dom.js";
import { amount, dayAndTime } from "./format.js";
import { ask } from "./live.js";

const DAY_S = 86_400;
const LEAST_MS = 60_000; // of time that is shown
const RANGES = [1, 7, 30];
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [220, 64, 10, 12, 24];

export class History {
  #name;
  #clock;
  #said;
  #days;
  #points = /** @type {any[]} */ ([]);
  #at = /** @type {number|null} */ (null);
  #asked = 0;
  #seen;

  /**
   * @param {string} name
   * @param {import("./clock.js").ServerClock} clock
   * @param {(asset: string) => void} said is told which asset is shown
   */
  constructor(name, clock, said) {
    this.#name = name;
    this.#clock = clock;
    this.#said = said;
    const given = new URLSearchParams(location.search);
    this.asset = given.get("asset") ?? "";
    const days = Number(given.get("days"));
    this.#days = RANGES.includes(days) ? days : 7;
    this.title = el("h2", { id: "history-title" });
    this.whole = el("button", { type: "button", class: "quiet", onclick: () => this.choose("") }, "Value in BTC");
    this.ranges = RANGES.map((range) => el("button", { type: "button", class: "quiet", onclick: () => this.#range(range) }, `${range} d`));
    this.figure = el("div", { class: "history-figure", tabindex: 0, role: "group" });
    this.reading = el("p", { class: "reading", role: "status" });
    this.empty = el("p", { class: "empty", hidden: true });
    this.element = el("section", { class: "panel is-history", "aria-labelledby": "history-title" },
      el("div", { class: "history-head" }, this.title, this.whole, el("span", { class: "ranges", role: "group", "aria-label": "Range" }, ...this.ranges)),
      this.figure, this.empty, this.reading);
    this.figure.addEventListener("pointermove", (event) => this.#point(event));
    this.figure.addEventListener("pointerleave", () => this.#read(null));
    this.figure.addEventListener("keydown", (event) => this.#key(event));
    this.#seen = new ResizeObserver(() => this.#draw());
    this.#seen.observe(this.figure);
    this.#buttons();
  }

  /** Nobody looks any more. */
  close() {
    this.#seen.disconnect();
    this.#asked += 1;
  }

  /** Show an asset's amount; "" shows the value of the whole. @param {string} asset */
  choose(asset) {
    this.asset = asset;
    this.#address();
    this.#said(asset);
    this.load();
  }

  #range(days) {
    this.#days = days;
    this.#address();
    this.load();
  }

  #address() {
    const given = new URLSearchParams();
    if (this.asset) given.set("asset", this.asset);
    if (this.#days !== 7) given.set("days", String(this.#days));
    const text = given.toString();
    history.replaceState(history.state, "", location.pathname + (text && `?${text}`));
    this.#buttons();
  }

  #buttons() {
    setText(this.title, this.asset ? `Amount of ${this.asset}` : "Value in BTC");
    this.whole.hidden = !this.asset;
    this.ranges.forEach((button, index) => setAttribute(button, "aria-pressed", String(RANGES[index] === this.#days)));
  }

  /** Ask for the history and draw it. */
  async load() {
    const mine = ++this.#asked;
    const reading = this.#at === null ? null : this.#points[this.#at]?.ms;
    const given = new URLSearchParams({ since_s: String(this.#days * DAY_S) });
    if (this.asset) given.set("asset", this.asset);
    let problem = "";
    let points = [];
    try {
      points = await ask(`/api/accounts/${encodeURIComponent(this.#name)}/history?${given}`);
    } catch (error) {
      problem = error.message;
    }
    if (mine !== this.#asked) return;
    const field = this.asset ? "total" : "total_btc";
    // An asset without an amount was not held; a value that is missing is not known.
    if (this.asset) for (const point of points) point.total ??= "0";
    this.#points = points.filter((point) => point[field] !== null)
      .map((point) => ({ ms: Date.parse(point.at), at: point.at, text: point[field], value: Number(point[field]), sequence: point.sequence }));
    this.empty.hidden = this.#points.length > 0;
    this.figure.hidden = !this.#points.length;
    setText(this.empty, problem || `Nothing is kept of the last ${this.#days === 1 ? "day" : `${this.#days} days`}`);
    // Who reads a point goes on reading it when a newer one comes.
    const read = this.#points.findIndex(({ ms }) => ms === reading);
    this.#at = read < 0 ? null : read;
    this.#draw();
  }

  #draw() {
    const width = this.figure.clientWidth;
    if (!width || !this.#points.length) return;
    const points = this.#points;
    const last = points[points.length - 1];
    const to_ms = Math.max(last.ms, this.#clock.now());
    // Before the first point nothing is known: what there is gets the room.
    const from_ms = Math.min(points[0].ms, to_ms - LEAST_MS);
    const values = points.map(({ value }) => value);
    const [low, high] = range(values);
    this.x = scale(from_ms, to_ms, LEFT, width - RIGHT);
    this.y = scale(low, high, HEIGHT - BOTTOM, TOP);
    const line = points.map(({ ms, value }) => /** @type {[number, number]} */ ([this.x(ms), this.y(value)]));
    line.push([this.x(to_ms), this.y(last.value)]); // what was accepted last still holds
    const path = stepPath(line);
    const marks = ticks(low, high, 4).map((value) => svg("g", {},
      svg("path", { class: "grid-line", d: `M${LEFT} ${this.y(value).toFixed(1)}H${width - RIGHT}` }),
      svg("text", { x: LEFT - 8, y: (this.y(value) + 4).toFixed(1), "text-anchor": "end" }, axisText(value))));
    const times = timeTicks(from_ms, to_ms, Math.max(2, Math.floor(width / 110))).map(({ ms, text }) =>
      svg("text", { x: this.x(ms).toFixed(1), y: HEIGHT - 6, "text-anchor": "middle" }, text));
    this.mark = svg("g", { class: "mark", visibility: "hidden" }, svg("path", {}), svg("circle", { r: 3.5 }));
    const words = `${this.title.textContent} over ${this.#days} days: ${points.length} points, from ${points[0].text} to ${last.text}`;
    this.figure.replaceChildren(svg("svg", { class: "history-chart", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words },
      ...marks, ...times,
      svg("path", { class: "history-area", d: `${path}V${HEIGHT - BOTTOM}H${line[0][0].toFixed(1)}Z` }),
      svg("path", { class: "history-line", d: path }), this.mark));
    setAttribute(this.figure, "aria-label", `${words}. Left and right arrow keys read the points.`);
    this.#read(this.#at);
  }

  #point(event) {
    if (!this.#points.length || !this.x) return;
    const place = event.clientX - this.figure.getBoundingClientRect().left;
    // The value at a place is that of the last point before it.
    const after = this.#points.findIndex(({ ms }) => this.x(ms) > place);
    this.#read(after < 0 ? this.#points.length - 1 : Math.max(0, after - 1));
  }

  #key(event) {
    const last = this.#points.length - 1;
    const at = this.#at ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#read(Math.min(last, Math.max(0, to)));
  }

  #read(index) {
    this.#at = index;
    const point = index === null ? null : this.#points[index];
    if (this.mark) this.mark.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) {
      setText(this.reading, this.#points.length ? `${this.#points.length} points; point at the line to read it` : "");
      return;
    }
    const [rule, dot] = this.mark.children;
    const [x, y] = [this.x(point.ms), this.y(point.value)];
    rule.setAttribute("d", `M${x.toFixed(1)} ${TOP}V${HEIGHT - BOTTOM}`);
    dot.setAttribute("cx", x.toFixed(1));
    dot.setAttribute("cy", y.toFixed(1));
    setText(this.reading, `${dayAndTime(point.at)} UTC: ${amount(point.text)} ${this.asset || "BTC"}, sequence ${point.sequence}`);
  }
}

/** What the axis spans: the values with some room, never of no height. @returns {[number, number]} */
function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

function axisText(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(6))} M`;
  return size && size < 1e-6 ? value.toExponential(1) : amount(String(value));
}
