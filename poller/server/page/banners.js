// Banners: each pause, a refused configuration, the lost connection, and what discovery found.

import { byId, el, keyed, setText } from "./dom.js";
import { countdown, dayAndTime, plural, span, timeOfDay } from "./format.js";
import { discoveryFindings, pauseCause, sentence } from "./words.js";

/**
 * @typedef {object} Banner
 * @property {string} key
 * @property {"bad"|"warn"|"note"} tone
 * @property {string} title
 * @property {string} text
 * @property {string} [count] what counts down or up
 * @property {readonly string[]} [lines]
 * @property {string} [action] a button that loads the page anew
 */

export class Banners {
  #store;

  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.#store = store;
    store.on(["status", "egress", "link", "tick"], () => this.#draw());
  }

  #draw() {
    const banners = [...this.#connection(), ...this.#pauses(), ...this.#configuration(), ...this.#discoveries()];
    keyed(byId("banners"), banners, ({ key }) => key, make, fill);
  }

  /** @returns {Iterable<Banner>} */
  *#connection() {
    const { cut_ms, hello, firstVersion } = this.#store;
    if (cut_ms !== null)
      yield {
        key: "link", tone: "bad", title: hello ? `Live data stopped ${span((performance.now() - cut_ms) / 1000)} ago.` : "There is no live data.",
        text: hello ? "What is shown is as old as that. Trying to connect again." : "The daemon does not answer. Trying to connect again.",
      };
    if (hello && hello.version !== firstVersion)
      yield {
        key: "version", tone: "note", title: `The daemon is now version ${hello.version}.`,
        text: `This page came with ${firstVersion}.`, action: "Load the new page",
      };
  }

  /** @returns {Iterable<Banner>} */
  *#pauses() {
    for (const egress of this.#store.egress ?? []) {
      if (!(egress.pause_s > 0) || !egress.pause_until) continue;
      const left_s = this.#store.clock.until_s(egress.pause_until);
      yield {
        key: `pause ${egress.egress}`, tone: "bad", title: `${egress.egress} is paused.`,
        text: `${sentence(pauseCause(egress.pause_cause))} ${plural(egress.accounts, "account waits", "accounts wait")}; no request leaves until ${timeOfDay(egress.pause_until)} UTC.`,
        count: left_s > 0 ? countdown(left_s) : "ends now",
      };
    }
  }

  /** @returns {Iterable<Banner>} */
  *#configuration() {
    const configuration = this.#store.status?.configuration;
    if (!configuration?.problems.length) return;
    yield {
      key: "configuration", tone: "warn", title: "The changed configuration was refused.",
      text: `${configuration.path} was read at ${dayAndTime(configuration.refused_at)} UTC; what was loaded at ${dayAndTime(configuration.loaded_at)} stays in force.`,
      lines: configuration.problems,
    };
  }

  /** @returns {Iterable<Banner>} */
  *#discoveries() {
    for (const discovery of this.#store.status?.discoveries ?? []) {
      const lines = discoveryFindings(discovery);
      if (lines.length)
        yield { key: `discovery ${discovery.name}`, tone: "note", title: `Discovery ${discovery.name}:`, text: lines.join(" \u00b7 ") };
    }
  }
}

/** @param {Banner} banner */
function make({ action, tone }) {
  const parts = { title: el("strong", {}), text: el("span", {}), lines: el("ul", {}), count: el("span", { class: "count", role: "timer" }) };
  const button = action && el("button", { type: "button", onclick: () => location.reload() }, action);
  const element = el("div", { class: `banner is-${tone}`, role: tone === "bad" ? "alert" : null },
    el("div", { class: "banner-words" }, parts.title, " ", parts.text, parts.lines), parts.count, button);
  // A reader is told once that there is a banner, not each second of its countdown.
  if (tone === "bad") {
    parts.count.setAttribute("aria-live", "off");
    parts.title.setAttribute("aria-live", "off");
  }
  return Object.assign(element, { parts });
}

/** @param {any} element @param {Banner} banner */
function fill({ parts }, { title, text, count, lines = [] }) {
  setText(parts.title, title);
  setText(parts.text, text);
  setText(parts.count, count ?? "");
  parts.count.hidden = count === undefined;
  parts.lines.hidden = !lines.length;
  keyed(parts.lines, lines, (line) => line, (line) => el("li", {}, line), () => {});
}
