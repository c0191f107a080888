// The fleet: the table of accounts with its search and filters, all of which the address holds.

import { COLUMNS, accountPath, fillRow, makeRow, tickRow } from "./columns.js";
import { byId, el, setText } from "./dom.js";
import { count } from "./format.js";
import { Grid } from "./grid.js";
import { SORTS, arrange, isDescending, readQuery, writeQuery } from "./order.js";
import { STATES } from "./words.js";

const LABELS_OFFERED = 300;
const NOTHING = { q: "", state: "", egress: "", label: "" };

export class Fleet {
  #store;
  #late = 0;
  /** @type {import("./order.js").Row[]} */
  shown = [];

  /** @param {import("./store.js").Store} store @param {(path: string) => void} go */
  constructor(store, go) {
    this.#store = store;
    this.query = readQuery(location.search);
    this.#tools();
    this.grid = new Grid(byId("grid"), {
      label: "Accounts",
      columns: COLUMNS,
      key: (row) => row.name,
      version: (row) => row.summary,
      make: makeRow,
      fill: fillRow,
      tick: (element, row) => tickRow(element, row, store.clock.now()),
      open: (row) => go(accountPath(row.name)),
      sort: (column) => this.sortBy(column),
    });
    store.on(["accounts"], () => this.#arrange(true));
    store.on(["egress", "accounts"], () => this.#offer());
    // Ages pass without events; what they decide is looked at once a second.
    store.on(["tick"], () => this.#arrange(true));
    store.on(["link"], () => this.grid.draw());
  }

  #tools() {
    this.search = el("input", {
      type: "search", id: "search", placeholder: "Search name, label, error", autocomplete: "off", spellcheck: "false",
      "aria-label": "Search name, label, error", "aria-keyshortcuts": "/",
      oninput: () => this.choose({ q: this.search.value }),
      onkeydown: (event) => {
        if (event.key === "Escape") this.choose({ q: "" });
        else if (event.key === "Enter" || event.key === "ArrowDown") this.grid.focus();
        else return;
        event.preventDefault();
      },
    });
    const select = (name, key) => el("select", { "aria-label": name, onchange: (event) => this.choose({ [key]: event.target.value }) });
    this.selects = { state: select("State", "state"), egress: select("Egress", "egress"), label: select("Label", "label") };
    this.order = el("select", { "aria-label": "Order", class: "order", onchange: (event) => this.sortBy(event.target.value) },
      ...SORTS.map((key) => el("option", { value: key }, key === "trouble" ? "Trouble first" : `By ${key}`)));
    this.found = el("p", { class: "found", role: "status" });
    this.clear = el("button", { type: "button", class: "quiet clear", onclick: () => this.choose(NOTHING) }, "Clear");
    byId("tools").append(
      el("span", { class: "search" }, this.search, el("kbd", { "aria-hidden": "true" }, "/")),
      ...Object.values(this.selects), this.order, this.found, this.clear);
    this.#options("state", "Any state", Object.keys(STATES));
    this.#options("egress", "Any egress", []);
    this.#options("label", "Any label", []);
    addEventListener("keydown", (event) => {
      const isTyping = /** @type {any} */ (event.target).closest?.("input, select, textarea");
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || byId("fleet").hidden) return;
      event.preventDefault();
      this.search.focus();
      this.search.select();
    });
  }

  #options(key, any, values) {
    const chosen = this.query[key];
    const shown = chosen && !values.includes(chosen) ? [chosen, ...values] : values;
    const select = this.selects[key];
    const wanted = JSON.stringify(shown);
    if (select.dataset.options !== wanted) {
      select.dataset.options = wanted;
      select.replaceChildren(el("option", { value: "" }, any), ...shown.map((value) => el("option", { value }, value)));
    }
    select.value = chosen;
    select.hidden = key !== "state" && shown.length < (key === "egress" ? 2 : 1);
  }

  /** Offer what the fleet has; names of labels are looked through only when accounts came. */
  #offer() {
    const rows = this.#store.rows.values();
    const egresses = new Set((this.#store.egress ?? []).map(({ egress }) => egress));
    const labels = new Set();
    for (const { summary, labels: own } of rows) {
      egresses.add(summary.egress);
      if (labels.size < LABELS_OFFERED) for (const text of own) labels.add(text);
    }
    this.#options("egress", "Any egress", [...egresses].sort());
    this.#options("label", "Any label", [...labels].sort());
  }

  /** Take the query from the address, as after going back. */
  readAddress() {
    this.query = readQuery(location.search);
    this.#offer();
    this.#arrange();
  }

  /** Change the query; the address follows. @param {Partial<import("./order.js").Query>} change */
  choose(change) {
    Object.assign(this.query, change);
    history.replaceState(history.state, "", location.pathname + writeQuery(this.query));
    this.#offer();
    this.#arrange();
    this.#store.changed("status"); // the states in the header show which one filters
  }

  /** Sort by a column; the same one again turns it, and once more gives the usual order back. */
  sortBy(column) {
    const { sort, turned } = this.query;
    if (sort !== column) this.choose({ sort: column, turned: false });
    else if (!turned && column !== "trouble") this.choose({ turned: true });
    else this.choose({ sort: "trouble", turned: false });
  }

  #arrange(isByItself = false) {
    if (byId("fleet").hidden) return;
    if (isByItself && this.grid.isPointedAt) {
      this.grid.draw();
      clearTimeout(this.#late);
      this.#late = setTimeout(() => this.#arrange(true), 600);
      // Rows under the pointer keep their places, but what they say is new.
      this.#show(this.shown.map((row) => this.#store.rows.get(row.name) ?? row));
      return;
    }
    this.#show(arrange(this.#store.rows.values(), this.query, this.#store.clock.now()));
  }

  #show(rows) {
    const { query } = this;
    this.shown = rows;
    const total = this.#store.rows.size;
    const isFiltered = Boolean(query.q || query.state || query.egress || query.label);
    this.grid.show(rows, this.#store.names === null ? "Waiting for the accounts" : total ? "No account matches" : "No account is configured");
    this.grid.showOrder(query.sort, isDescending(query.sort, query.turned));
    setText(this.found, isFiltered ? `${count(rows.length)} of ${count(total)}` : `${count(total)} accounts`);
    this.clear.hidden = !isFiltered;
    if (this.search.value !== query.q) this.search.value = query.q;
    this.order.value = query.sort;
  }
}
