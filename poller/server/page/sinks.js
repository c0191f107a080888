// The sinks: who is behind, who fails, and with what.

import { byId, el, keyed, setText } from "./dom.js";
import { age, count, figure, plural } from "./format.js";
import { sinkTroubles } from "./words.js";

export class Sinks {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    const body = el("tbody", {});
    const head = ["Sink", "Backlog", "Lag", "Rate/s"].map((title, index) =>
      el("th", { scope: "col", class: index ? "is-number" : null }, title));
    byId("sinks").append(el("table", { class: "small-table" }, el("thead", {}, el("tr", {}, ...head)), body));
    store.on(["sinks"], () => keyed(body, store.sinks ?? [], ({ sink }) => sink, make, fill));
  }
}

function make() {
  const number = () => el("td", { class: "is-number" });
  const parts = {
    name: el("span", { class: "name" }), kind: el("span", { class: "kind" }), trouble: el("span", { class: "trouble" }),
    lost: el("span", { class: "lost" }), backlog: number(), lag: number(), rate: number(),
  };
  const head = el("th", { scope: "row" }, el("span", { class: "dot", "aria-hidden": "true" }), parts.name, " ", parts.kind, parts.trouble, parts.lost);
  return Object.assign(el("tr", {}, head, parts.backlog, parts.lag, parts.rate), { parts });
}

function fill(row, sink) {
  const { parts } = row;
  const troubles = sinkTroubles(sink);
  row.className = sink.failing_s > 0 || sink.is_open ? "is-bad" : sink.error || sink.dead_letters ? "is-warn" : "is-good";
  setText(parts.name, sink.sink);
  setText(parts.kind, sink.kind === sink.sink ? "" : sink.kind);
  setText(parts.backlog, count(sink.backlog));
  setText(parts.lag, age(sink.lag_s));
  setText(parts.rate, figure(sink.rate_per_s));
  row.title = `${plural(sink.delivered, "record")} delivered since the start`;
  setText(parts.trouble, troubles.join("; "));
  parts.trouble.hidden = !troubles.length;
  const lost = [];
  if (sink.dead_letters) lost.push(plural(sink.dead_letters, "dead letter"));
  if (sink.dropped) lost.push(`${count(sink.dropped)} dropped`);
  setText(parts.lost, lost.join(", "));
  parts.lost.hidden = !lost.length;
}
