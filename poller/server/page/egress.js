// Weight by egress: the last seconds as a picture, what is allowed as rules, and the numbers beside it.

import { areaPath, linePath, scale } from "./charts.js";
import { byId, el, keyed, setAttribute, setText, svg } from "./dom.js";
import { count, countdown, figure, plural } from "./format.js";
import { pauseCause } from "./words.js";

const [TALL, LOW] = [88, 40]; // one address has more room than several
const FEW_SINKS = 3;
const SECONDS = 120;
const FIGURES = 134; // the width of the numbers beside the picture

export class Egress {
  #store;

  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.#store = store;
    store.on(["egress", "sinks"], () => this.#draw());
    store.on(["tick"], () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(byId("egress"));
  }

  #draw() {
    const width = byId("egress").clientWidth;
    if (!width) return;
    const isSeveral = (this.#store.egress ?? []).length > 1;
    byId("egress").classList.toggle("is-several", isSeveral);
    // One address and a few sinks need no tall panels; the accounts get the room.
    const isSmall = !isSeveral && (this.#store.sinks ?? []).length <= FEW_SINKS;
    byId("egress").closest(".side").classList.toggle("is-small", isSmall);
    const size = isSeveral ? { height: LOW, beside: 0 } : { height: TALL, beside: FIGURES };
    const each = (card, egress) => fill(card, egress, size, this.#store.clock);
    keyed(byId("egress"), this.#store.egress ?? [], ({ egress }) => egress, make, each);
  }
}

function make() {
  const figureOf = (name, term) => {
    const value = el("dd", {});
    return { value, element: el("div", { class: `is-${name}` }, el("dt", {}, term), value) };
  };
  const figures = {
    own: figureOf("own", "own"), foreign: figureOf("foreign", "foreign"), reported: figureOf("reported", "reported"),
    allowed: figureOf("allowed", "allowed"), capacity: figureOf("capacity", "left to us"),
  };
  const shapes = {
    pauses: svg("g", { class: "pause-bands" }),
    foreign: svg("path", { class: "area-foreign" }), own: svg("path", { class: "area-own" }),
    allowed: svg("path", { class: "rule-allowed" }), limit: svg("path", { class: "rule-limit" }),
    reported: svg("path", { class: "line-reported" }),
  };
  const picture = svg("svg", { class: "weights", role: "img" }, ...Object.values(shapes));
  const parts = { name: el("strong", {}), use: el("span", { class: "use" }), note: el("span", { class: "hint" }), pause: el("p", { class: "pause" }), stretch: el("p", { class: "stretch" }) };
  const element = el("div", { class: "egress-card" },
    el("h3", {}, parts.name, " ", parts.note, parts.use),
    el("div", { class: "egress-picture" }, picture,
      el("dl", { class: "egress-figures" }, ...Object.values(figures).map(({ element: part }) => part))),
    parts.pause, parts.stretch);
  return Object.assign(element, { figures, shapes, picture, parts });
}

function fill(card, egress, size, clock) {
  const { figures, parts } = card;
  setText(parts.name, egress.egress);
  setText(parts.note, `${plural(egress.accounts, "account")}, ${count(egress.in_flight)} in flight`);
  setText(parts.use, `${count(egress.own + egress.foreign)} of ${count(egress.limit)}`);
  parts.use.title = `Weight in the last ${figure(egress.window_s)} s, own and foreign, of the exchange's limit`;
  setText(figures.own.value, count(egress.own));
  setText(figures.foreign.value, count(egress.foreign));
  setText(figures.reported.value, egress.reported === null ? "\u2013" : count(egress.reported));
  setText(figures.allowed.value, count(egress.allowed));
  setText(figures.capacity.value, count(egress.capacity));
  figures.capacity.element.hidden = egress.capacity >= egress.allowed;
  const left_s = egress.pause_until && egress.pause_s > 0 ? clock.until_s(egress.pause_until) : 0;
  const isPaused = egress.pause_s > 0;
  parts.pause.hidden = !isPaused;
  if (isPaused) setText(parts.pause, `Pause ${countdown(left_s)}: ${pauseCause(egress.pause_cause)}`);
  const stretched = Object.entries(egress.stretch).filter(([, factor]) => factor > 1.005);
  parts.stretch.hidden = !stretched.length;
  setText(parts.stretch, `Intervals stretched: ${stretched.map(([priority, factor]) => `priority ${priority} \u00d7 ${figure(factor)}`).join(", ")}`);
  card.classList.toggle("is-paused", isPaused);
  draw(card, egress, size);
}

function draw({ shapes, picture }, egress, { height, beside }) {
  const width = Math.max(60, (picture.parentElement?.clientWidth ?? 300) - beside);
  if (picture.dataset.drawn === `${width} ${height}` && picture.seconds === egress.seconds) return;
  picture.dataset.drawn = `${width} ${height}`;
  picture.seconds = egress.seconds;
  setAttribute(picture, "width", String(width));
  setAttribute(picture, "height", String(height));
  setAttribute(picture, "viewBox", `0 0 ${width} ${height}`);
  setAttribute(picture, "aria-label", describe(egress));
  const { seconds } = egress;
  const most = Math.max(egress.limit, ...seconds.map(({ own, foreign, reported }) => Math.max(own + foreign, reported ?? 0)));
  const x = scale(-(SECONDS - 1), 0, 0, width);
  const y = scale(0, most * 1.06, height - 1, 2);
  const xs = seconds.map((_, index) => x(index - seconds.length + 1));
  const base = xs.map((place) => /** @type {[number, number]} */ ([place, y(0)]));
  const own = xs.map((place, i) => /** @type {[number, number]} */ ([place, y(seconds[i].own)]));
  const both = xs.map((place, i) => /** @type {[number, number]} */ ([place, y(seconds[i].own + seconds[i].foreign)]));
  setAttribute(shapes.own, "d", areaPath(own, base));
  setAttribute(shapes.foreign, "d", areaPath(both, own));
  const reported = xs.map((place, i) => [place, seconds[i].reported]).filter(([, value]) => value !== null);
  setAttribute(shapes.reported, "d", linePath(reported.map(([place, value]) => [/** @type {number} */ (place), y(value)])));
  setAttribute(shapes.allowed, "d", `M0 ${y(egress.allowed).toFixed(1)}H${width}`);
  setAttribute(shapes.limit, "d", `M0 ${y(egress.limit).toFixed(1)}H${width}`);
  shapes.pauses.replaceChildren(...bands(seconds).map(([from, to]) => {
    const left = x(from - seconds.length + 0.5);
    return svg("rect", { x: left.toFixed(1), y: 0, width: Math.max(1, x(to - seconds.length + 1.5) - left).toFixed(1), height });
  }));
}

/** Runs of paused seconds, as first and last place. @returns {[number, number][]} */
function bands(seconds) {
  const runs = [];
  seconds.forEach(({ is_paused }, index) => {
    const last = runs.at(-1);
    if (is_paused && last && last[1] === index - 1) last[1] = index;
    else if (is_paused) runs.push([index, index]);
  });
  return runs;
}

function describe(egress) {
  const reported = egress.reported === null ? "" : `, the exchange reported ${egress.reported}`;
  return `Weight at ${egress.egress} over the last ${egress.seconds.length} seconds: now own ${egress.own}, foreign ${egress.foreign}${reported}; allowed ${egress.allowed} of ${egress.limit}`;
}
