// One account's page: how it stands and why, what it holds, what that was worth, and its last polls.

import { Balances } from "./balances.js";
import { ageAndInterval, fillAmount, stateSign } from "./columns.js";
import { byId, el, keyed, setText } from "./dom.js";
import { age, count, dayAndTime, interval, plural, short, timeOfDay } from "./format.js";
import { History } from "./history.js";
import { ask } from "./live.js";
import { ageOf, freshness, labelTexts, toRow } from "./order.js";
import { STATES } from "./words.js";

const BETWEEN_MS = 1_000; // an account that is polled more often is asked about no more often
const AGAIN_MS = 5_000; // why it stands so changes without a poll, too: it waits longer, its address pauses

export class Account {
  #store;
  #name = /** @type {string|null} */ (null);
  #detail = /** @type {any} */ (null);
  #row = /** @type {any} */ (null);
  #due_ms = /** @type {number|null} */ (null);
  #seen = /** @type {any} */ (null);
  #waits = 0;
  #asked_ms = 0;
  #parts = /** @type {any} */ (null);

  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.#store = store;
    store.on(["accounts"], () => this.#notice());
    store.on(["tick", "link"], () => {
      this.#tick();
      this.#askAgain();
    });
  }

  /** Show the page of an account; null leaves it. @param {string|null} name */
  show(name) {
    if (name === this.#name) return;
    clearTimeout(this.#waits);
    this.#waits = 0;
    this.#parts?.history.close();
    [this.#name, this.#detail, this.#row, this.#seen, this.#parts] = [name, null, null, null, null];
    byId("account").replaceChildren();
    if (name === null) return;
    this.#build(name);
    this.#load();
  }

  #build(name) {
    const parts = {
      title: el("h1", { tabindex: -1 }, name), state: el("p", { class: "account-state" }), value: el("span", {}), unit: el("small", {}),
      why: el("ul", { class: "why" }), facts: el("dl", { class: "facts" }), problem: el("p", { class: "empty", role: "status" }, "Loading"),
      polls: el("tbody", {}), history: /** @type {any} */ (null), balances: /** @type {any} */ (null),
    };
    parts.balances = new Balances((asset) => parts.history.choose(asset));
    parts.history = new History(name, this.#store.clock, (asset) => parts.balances.showChosen(asset));
    parts.balances.showChosen(parts.history.asset);
    const heads = ["At, UTC", "Outcome", "Late", "Answer took", "Sequence"].map((title, index) =>
      el("th", { scope: "col", class: index > 1 ? "is-number" : null }, title));
    const panel = (kind, title, ...content) =>
      el("section", { class: `panel is-${kind}`, "aria-labelledby": `${kind}-title` }, el("h2", { id: `${kind}-title` }, title), ...content);
    const table = el("table", { class: "small-table" }, el("thead", {}, el("tr", {}, ...heads)), parts.polls);
    parts.whole = el("div", { class: "account-body", hidden: true },
      el("div", { class: "account-main" }, parts.history.element, panel("balances", "Balances", parts.balances.element)),
      el("div", { class: "account-side" }, panel("why", "How it stands", parts.why), panel("facts", "Facts", parts.facts),
        panel("polls", "Last polls", el("div", { class: "scrolls", tabindex: 0, role: "group", "aria-labelledby": "polls-title" }, table))));
    byId("account").append(
      el("p", { class: "back" }, el("a", { href: "/", class: "to-fleet", "data-inside": true }, "\u2190 Fleet")),
      el("header", { class: "account-head" }, parts.title, parts.state, el("p", { class: "account-value" }, parts.value, parts.unit)), parts.problem, parts.whole);
    this.#parts = parts;
    parts.title.focus({ preventScroll: true });
  }

  #notice() {
    const row = this.#name === null ? null : this.#store.rows.get(this.#name);
    if (!row || row.summary === this.#seen || this.#waits) return;
    this.#waits = setTimeout(() => {
      this.#waits = 0;
      this.#load();
    }, this.#seen === null ? 0 : BETWEEN_MS);
  }

  #askAgain() {
    const isQuiet = performance.now() - this.#asked_ms > AGAIN_MS;
    if (this.#detail !== null && isQuiet && !this.#waits && this.#store.cut_ms === null && !document.hidden) this.#load();
  }

  async #load() {
    const name = this.#name;
    if (name === null) return;
    this.#asked_ms = performance.now();
    this.#seen = this.#store.rows.get(name)?.summary ?? null;
    let detail;
    try {
      detail = await ask(`/api/accounts/${encodeURIComponent(name)}`);
    } catch (error) {
      if (name === this.#name) this.#fail(error);
      return;
    }
    if (name !== this.#name) return;
    const isNew = this.#detail?.summary.sequence !== detail.summary.sequence;
    const due_s = detail.summary.next_due_s;
    this.#detail = detail;
    this.#row = toRow(detail.summary);
    this.#due_ms = due_s === null ? null : this.#store.clock.now() + due_s * 1000;
    this.#fill();
    if (isNew) this.#parts.history.load();
  }

  #fail(error) {
    const isGone = error.status === 404;
    this.#parts.problem.hidden = this.#detail !== null && !isGone;
    if (isGone) {
      this.#detail = null;
      this.#parts.whole.hidden = true;
    }
    setText(this.#parts.problem, error.message);
  }

  #fill() {
    const { summary, balances, polls, why } = this.#detail;
    const parts = this.#parts;
    parts.problem.hidden = true;
    parts.whole.hidden = false;
    parts.state.className = `account-state is-${summary.state}`;
    parts.state.replaceChildren(stateSign(summary.state), el("strong", {}, summary.state),
      el("span", {}, summary.reason || STATES[summary.state] || ""));
    fillAmount(parts.value, summary.total_btc);
    setText(parts.unit, summary.total_btc === null ? "value not known" : "BTC");
    keyed(parts.why, why, (sentence) => sentence, (sentence) => el("li", {}, sentence), () => {});
    parts.balances.show(balances);
    keyed(parts.polls, polls, ({ at, outcome }) => `${at} ${outcome}`, makePoll, () => {});
    this.#facts(summary);
    this.#tick();
  }

  #facts(summary) {
    const facts = [
      ["Last good answer", ""],
      ["Next poll", ""],
      ["Interval", interval(summary.interval_s) + (summary.stretch > 1.005 ? `, stretched \u00d7 ${summary.stretch.toFixed(2)}` : "")],
      ["Lateness of the last poll", short(summary.lateness_s)],
      ["In this state since", summary.since === null ? "always" : `${dayAndTime(summary.since)} UTC`],
      ["Priority", String(summary.priority)],
      ["Egress", summary.egress],
      ["Labels", labelTexts(summary.labels).join(", ") || "none"],
      ["Sequence", count(summary.sequence)],
      ["Assets", count(summary.assets)],
      ["Last error", summary.error ? `${summary.error} (${summary.error_kind}, ${plural(summary.failures, "time")} in a row)` : "none"],
    ];
    const make = () => el("div", {}, el("dt", {}), el("dd", {}));
    keyed(this.#parts.facts, facts, ([name]) => name, make, (element, [name, text]) => {
      setText(element.firstElementChild, name);
      if (text) setText(element.lastElementChild, text);
    });
  }

  #tick() {
    if (!this.#row || !this.#parts) return;
    const now_ms = this.#store.clock.now();
    const [good, next] = this.#parts.facts.children;
    const age_s = ageOf(this.#row, now_ms);
    good.dataset.fresh = freshness(age_s, this.#row.period_s);
    good.classList.add("is-age");
    setText(good.lastElementChild, age_s === null ? "none since the start" : `${ageAndInterval(age_s, this.#row.summary)}`);
    const left_s = this.#due_ms === null ? null : (this.#due_ms - now_ms) / 1000;
    setText(next.lastElementChild, left_s === null ? "none planned" : left_s >= 0 ? `in ${age(left_s)}` : `overdue for ${age(-left_s)}`);
  }
}

function makePoll(poll) {
  const isGood = poll.outcome === "ok";
  return el("tr", { class: isGood ? "is-good" : "is-bad" },
    el("td", { title: poll.at }, timeOfDay(poll.at)),
    el("td", {}, el("span", { class: "outcome" }, poll.outcome.replaceAll("_", " ")), poll.text && el("span", { class: "poll-text" }, poll.text)),
    el("td", { class: "is-number" }, short(poll.lateness_s)),
    el("td", { class: "is-number" }, poll.latency_ms === null ? "\u2013" : `${Math.round(poll.latency_ms)} ms`),
    el("td", { class: "is-number" }, count(poll.sequence)));
}
