// The fleet table's columns and rows: what of an account is shown where.

import { sparkPath } from "./charts.js";
import { el, setAttribute, setText, svg } from "./dom.js";
import { age, amountParts, figure, interval, plural, short } from "./format.js";
import { ageOf, freshness } from "./order.js";
import { STATES } from "./words.js";

export const COLUMNS = [
  { key: "state", title: "State", sort: true },
  { key: "account", title: "Account", sort: true },
  { key: "labels", title: "Labels", sort: true },
  { key: "egress", title: "Egress", sort: true },
  { key: "age", title: "Last good / interval", sort: true },
  { key: "lateness", title: "Late", sort: true, number: true },
  { key: "value", title: "Value, BTC", sort: true, number: true },
  { key: "line", title: "Over time" },
  { key: "error", title: "Last error", sort: true },
];
const [SPARK_WIDTH, SPARK_HEIGHT] = [84, 22];

/** The address of an account's page. @param {string} name */
export function accountPath(name) {
  return `/account/${encodeURIComponent(name)}`;
}

/** A sign for a state: its form differs, not only its colour. */
export function stateSign(state) {
  const forms = {
    ok: svg("circle", { cx: 6, cy: 6, r: 3.2 }),
    stale: svg("path", { d: "M6 1.2 11.2 10.4H.8Z" }),
    quarantined: svg("path", { d: "M2 2h8v8H2Z" }),
    keyless: svg("path", { d: "M6 .8 11.2 6 6 11.2.8 6Z" }),
  };
  return svg("svg", { viewBox: "0 0 12 12", class: `sign is-${state}`, "aria-hidden": "true" }, forms[state] ?? forms.keyless);
}

/** An amount in two spans, so that points can stand below each other. @param {any} cell */
export function fillAmount(cell, text) {
  if (!cell.firstChild) cell.append(el("span", { class: "whole" }), el("span", { class: "fraction" }));
  const [whole, fraction] = text === null ? ["\u2013", ""] : amountParts(text);
  setText(cell.firstChild, whole);
  setText(cell.firstChild.nextSibling, fraction);
  cell.firstChild.classList.toggle("unknown", text === null);
  setAttribute(cell, "title", text);
}

/** @returns {HTMLElement} */
export function makeRow() {
  const cells = {};
  for (const { key, number } of COLUMNS) {
    cells[key] = el("div", { role: "gridcell", class: `cell is-${key}${number ? " is-number" : ""}` });
  }
  cells.word = el("span", { class: "word" });
  cells.link = el("a", { class: "name", tabindex: -1 });
  cells.account.append(cells.link);
  cells.bar = el("span", { class: "bar-fill" });
  cells.ageText = el("span", { class: "age-text" });
  cells.age.append(el("span", { class: "bar", "aria-hidden": "true" }, cells.bar), cells.ageText);
  cells.path = svg("path", {});
  cells.line.append(svg("svg", { viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, class: "spark", "aria-hidden": "true" }, cells.path));
  const row = el("div", { role: "row", class: "row" }, ...COLUMNS.map(({ key }) => cells[key]));
  return Object.assign(row, { cells });
}

/** @param {any} element @param {import("./order.js").Row} row */
export function fillRow(element, { name, summary, labels }) {
  const { cells } = element;
  // What scrolling changes most often is kept where it can be: making elements is what costs.
  if (cells.word.textContent !== summary.state) {
    element.className = `row is-${summary.state}`;
    setText(cells.word, summary.state);
    cells.state.replaceChildren(stateSign(summary.state), cells.word);
  }
  setAttribute(cells.state, "title", summary.reason || (STATES[summary.state] ?? null));
  setText(cells.link, name);
  setAttribute(cells.link, "href", accountPath(name));
  setAttribute(cells.link, "title", name);
  const all = labels.join(", ");
  if (cells.labels.dataset.all !== all) {
    cells.labels.dataset.all = all;
    cells.labels.replaceChildren(...Object.entries(summary.labels).map(([key, value]) =>
      el("span", { class: "label" }, el("span", { class: "label-key" }, key), " ", value)));
    setAttribute(cells.labels, "title", all || null);
  }
  setText(cells.egress, summary.egress);
  setText(cells.lateness, short(summary.lateness_s));
  cells.lateness.classList.toggle("is-late", (summary.lateness_s ?? 0) > summary.interval_s);
  fillAmount(cells.value, summary.total_btc);
  setAttribute(cells.path, "d", sparkPath(summary.line, SPARK_WIDTH, SPARK_HEIGHT));
  const error = summary.error || (summary.state === "ok" ? "" : summary.reason);
  const times = summary.failures > 1 ? `, ${plural(summary.failures, "time")} in a row` : "";
  setText(cells.error, error && error + times);
  setAttribute(cells.error, "title", error ? error + times + (summary.error_kind ? ` (${summary.error_kind})` : "") : null);
}

/** What an age reads like beside its interval: "12 s / 60 s", with the stretch if there is one. */
export function ageAndInterval(age_s, { interval_s, stretch }) {
  const stretched = stretch > 1.005 ? ` \u00d7 ${figure(stretch)}` : "";
  return `${age(age_s)} / ${interval(interval_s)}${stretched}`;
}

/** Only what changes with time. @param {any} element @param {import("./order.js").Row} row @param {number} now_ms */
export function tickRow(element, row, now_ms) {
  const { cells } = element;
  const age_s = ageOf(row, now_ms);
  const fresh = freshness(age_s, row.period_s);
  if (cells.age.dataset.fresh !== fresh) cells.age.dataset.fresh = fresh;
  setText(cells.ageText, age_s === null ? `never / ${interval(row.summary.interval_s)}` : ageAndInterval(age_s, row.summary));
  const share = age_s === null ? 1 : Math.min(1, age_s / (2 * row.period_s));
  cells.bar.style.transform = `scaleX(${share.toFixed(3)})`;
}
