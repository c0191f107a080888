// What the page knows of the fleet. Events go in, and whoever shows something is told once a frame.

import { ServerClock } from "./clock.js";
import { toRow } from "./order.js";

export const LINES_KEPT = 200;

/** @typedef {"accounts"|"status"|"egress"|"sinks"|"happenings"|"link"|"tick"} Topic */

export class Store {
  clock = new ServerClock();
  /** @type {Map<string, import("./order.js").Row>} */
  rows = new Map();
  /** @type {string[]|null} */
  names = null;
  /** @type {any} */
  status = null;
  /** @type {any[]|null} */
  egress = null;
  /** @type {any[]|null} */
  sinks = null;
  /** newest last */
  happenings = [];
  /** @type {any} */
  hello = null;
  firstVersion = "";
  /** Local milliseconds since when nothing comes; null while live. @type {number|null} */
  cut_ms = null;

  #listeners = new Map();
  #dirty = new Set();
  #isUnranked = false;
  #collator = new Intl.Collator("en", { numeric: true });

  constructor() {
    // A frame that was asked for just before the page went into the background would not come any more.
    document.addEventListener("visibilitychange", () => document.hidden && this.#dirty.size && this.#tell());
  }

  /** @param {Topic[]} topics @param {() => void} listener */
  on(topics, listener) {
    for (const topic of topics) this.#listeners.set(topic, [...(this.#listeners.get(topic) ?? []), listener]);
  }

  /** Tell the listeners of a topic before the next frame, once. @param {Topic} topic */
  changed(topic) {
    const isFirst = !this.#dirty.size;
    this.#dirty.add(topic);
    if (!isFirst) return;
    // A page in the background gets no frames, but its title is read all the same.
    if (document.hidden) setTimeout(() => this.#tell(), 1_000);
    else requestAnimationFrame(() => this.#tell());
  }

  #tell() {
    if (this.#isUnranked) this.#rank();
    const called = new Set([...this.#dirty].flatMap((topic) => this.#listeners.get(topic) ?? []));
    this.#dirty.clear();
    for (const listener of called) listener();
  }

  /** The stream has begun, or begun again. */
  takeHello(hello) {
    if (this.hello && this.hello.started_at !== hello.started_at) this.happenings = [];
    this.firstVersion ||= hello.version;
    this.hello = hello;
    this.clock.heard(hello.at);
    this.changed("status");
    this.changed("happenings");
  }

  /** Accounts that changed; with names, those that are not among them are gone. */
  takeFleet({ at, names, accounts }) {
    this.clock.heard(at);
    let isNew = false;
    for (const summary of accounts) {
      const row = toRow(summary);
      const old = this.rows.get(row.name);
      row.rank = old?.rank ?? 0;
      isNew ||= !old;
      this.rows.set(row.name, row);
    }
    if (names) {
      this.names = names;
      const kept = new Set(names);
      for (const name of this.rows.keys()) if (!kept.has(name)) this.rows.delete(name);
    }
    this.#isUnranked ||= isNew;
    this.changed("accounts");
  }

  #rank() {
    this.#isUnranked = false;
    const sorted = [...this.rows.values()].sort((a, b) => this.#collator.compare(a.name, b.name));
    sorted.forEach((row, rank) => {
      row.rank = rank;
    });
  }

  takeStatus(status) {
    this.clock.heard(status.at);
    this.status = status;
    this.changed("status");
  }

  /** Every address. @param {any[]} egress */
  takeEgress(egress) {
    this.egress = egress;
    this.changed("egress");
  }

  /** Every sink. @param {any[]} sinks */
  takeSinks(sinks) {
    this.sinks = sinks;
    this.changed("sinks");
  }

  /** Happenings in any order; those that were seen before are passed over. @param {any[]} happenings */
  takeHappenings(happenings) {
    const all = new Map(this.happenings.map((happening) => [happening.number, happening]));
    for (const happening of happenings) all.set(happening.number, happening);
    if (all.size === this.happenings.length) return;
    this.happenings = [...all.values()].sort((a, b) => a.number - b.number).slice(-LINES_KEPT);
    this.changed("happenings");
  }

  /** Whether live data comes. @param {boolean} live @param {number} now_ms local, never steps */
  setLive(live, now_ms) {
    if (live === (this.cut_ms === null)) return;
    this.cut_ms = live ? null : now_ms;
    if (!live) this.clock.stop();
    this.changed("link");
  }
}
