// The header: is the daemon ready, is the fleet fresh, and the few figures that say so.

import { stateSign } from "./columns.js";
import { byId, el, keyed, setAttribute, setText } from "./dom.js";
import { amountParts, bytes, count, figure, percent, plural, short, span } from "./format.js";
import { STATES, verdict } from "./words.js";

export class Header {
  #store;
  #fleet;
  #toFleet;

  /** @param {import("./store.js").Store} store @param {import("./fleet.js").Fleet} fleet @param {() => void} toFleet */
  constructor(store, fleet, toFleet) {
    this.#store = store;
    this.#fleet = fleet;
    this.#toFleet = toFleet;
    store.on(["status"], () => this.#draw());
    store.on(["link", "tick"], () => this.#link());
  }

  #draw() {
    const { status } = this.#store;
    if (!status) return;
    document.body.classList.remove("is-waiting");
    const { word, ok, wrong } = verdict(status);
    const line = byId("verdict");
    line.className = `verdict ${ok ? "is-good" : "is-bad"}`;
    const said = wrong.join("; ");
    if (line.dataset.said !== word + said) {
      line.dataset.said = word + said;
      line.replaceChildren(el("strong", {}, word), ...(said ? [el("span", {}, said)] : []));
    }
    this.#states(status);
    this.#figures(status);
    const troubled = status.accounts - (status.states.ok ?? 0);
    document.title = `${ok ? "" : "Not ready · "}${troubled ? `${count(troubled)} not ok · ` : ""}poller`;
  }

  #states(status) {
    const states = [...new Set([...Object.keys(STATES), ...Object.keys(status.states)])].reverse();
    const make = (state) => {
      const number = el("strong", {});
      const choose = () => {
        const isChosen = this.#fleet.query.state === state && !byId("fleet").hidden;
        this.#toFleet();
        this.#fleet.choose({ state: isChosen ? "" : state });
      };
      const button = el("button", { type: "button", class: `state is-${state}`, title: STATES[state], onclick: choose },
        stateSign(state), number, el("span", {}, state));
      return Object.assign(button, { number });
    };
    keyed(byId("states"), states, (state) => state, make, (button, state) => {
      const number = status.states[state] ?? 0;
      setText(button.number, count(number));
      button.classList.toggle("is-none", number === 0);
      setAttribute(button, "aria-pressed", String(this.#fleet.query.state === state));
    });
    keyed(byId("proportions"), states, (state) => state, (state) => el("span", { class: `is-${state}` }), (part, state) => {
      part.style.flexGrow = String(status.states[state] ?? 0);
      part.hidden = !status.states[state];
    });
  }

  #figures(status) {
    const { outbox } = status;
    const [whole, fraction] = amountParts(status.total_btc);
    const up_s = (Date.parse(status.at) - Date.parse(status.started_at)) / 1000;
    const fill = outbox.max_bytes ? outbox.used_bytes / outbox.max_bytes : 0;
    const figures = [
      { name: "Overdue", text: count(status.overdue), tone: status.overdue ? "is-warn" : "", title: "Accounts whose last good answer is older than two of their intervals" },
      { name: "Total BTC", text: whole + fraction, note: status.unvalued ? `+ ${count(status.unvalued)} unvalued` : "", title: `${status.total_btc} BTC${status.unvalued ? `; the value of ${plural(status.unvalued, "account")} is not known` : ""}` },
      { name: "Polls a second", text: figure(status.polls_per_s), title: "Over the last minute" },
      { name: "Clock offset", text: short(status.clock_offset_s), tone: Math.abs(status.clock_offset_s) > 1 ? "is-warn" : "", title: "The exchange's clock against this machine's" },
      { name: "Outbox", text: outbox.is_full ? "full" : percent(outbox.used_bytes, outbox.max_bytes), tone: outbox.is_full ? "is-bad" : fill > 0.8 ? "is-warn" : "", title: `${bytes(outbox.used_bytes)} of ${bytes(outbox.max_bytes)}, ${plural(outbox.records, "record")}; the oldest that waits is ${span(outbox.oldest_s)} old`, fill },
      { name: "Up for", text: span(up_s), title: `Started ${status.started_at}` },
      { name: "Version", text: status.version },
    ];
    const make = () => {
      const parts = { dt: el("dt", {}), text: el("span", {}), note: el("small", {}), gauge: el("span", { class: "gauge" }, el("span", {})) };
      return Object.assign(el("div", {}, parts.dt, el("dd", {}, parts.text, parts.note, parts.gauge)), { parts });
    };
    keyed(byId("figures"), figures, ({ name }) => name, make, ({ parts }, shown) => {
      setText(parts.dt, shown.name);
      setText(parts.text, shown.text);
      setText(parts.note, shown.note ?? "");
      parts.gauge.hidden = shown.fill === undefined;
      parts.gauge.firstElementChild.style.transform = `scaleX(${Math.min(1, shown.fill ?? 0).toFixed(3)})`;
      setAttribute(parts.dt.parentElement, "class", `figure ${shown.tone ?? ""}`.trim());
      setAttribute(parts.dt.parentElement, "title", shown.title ?? null);
    });
  }

  #link() {
    const { cut_ms } = this.#store;
    document.body.classList.toggle("is-cut", cut_ms !== null);
    setText(byId("link"), cut_ms === null ? (this.#store.hello ? "live" : "connecting") : "cut off");
    byId("link").className = `link ${cut_ms === null ? "is-live" : "is-cut"}`;
  }
}
