// An account's balances: exact, sortable, and each asset chooses what the history shows.

import { fillAmount } from "./columns.js";
import { el, keyed, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { compareAmounts } from "./order.js";

const SHOWN_AT_FIRST = 300;
const AMOUNTS = ["total", "free", "locked", "freeze", "withdrawing", "ipoable", "btc_valuation"];
const TITLES = { btc_valuation: "Value, BTC" };

/** Balances in another order; what is not known goes last. Pure. */
export function sortBalances(balances, column, descending) {
  const way = descending ? -1 : 1;
  return [...balances].sort((a, b) => {
    const byAsset = a.asset < b.asset ? -1 : a.asset > b.asset ? 1 : 0;
    if (column === "asset") return way * byAsset;
    if (a[column] === null || b[column] === null) return Number(a[column] === null) - Number(b[column] === null) || byAsset;
    return way * compareAmounts(a[column], b[column]) || byAsset;
  });
}

export class Balances {
  #balances = /** @type {any[]} */ ([]);
  #column = "btc_valuation";
  #descending = true;
  #chosen = "";
  #choose;
  #isWhole = false;

  /** @param {(asset: string) => void} choose an asset for the history; "" for the whole value */
  constructor(choose) {
    this.#choose = choose;
    this.heads = new Map(["asset", ...AMOUNTS].map((column) => [column, this.#head(column)]));
    this.body = el("tbody", {});
    this.more = el("button", { type: "button", class: "quiet", hidden: true, onclick: () => {
      this.#isWhole = true;
      this.#draw();
    } });
    this.empty = el("p", { class: "empty", hidden: true });
    this.element = el("div", {},
      el("div", { class: "scrolls", tabindex: 0, role: "group", "aria-label": "Balances" },
        el("table", { class: "small-table balances" }, el("thead", {}, el("tr", {}, ...this.heads.values())), this.body)),
      this.empty, this.more);
  }

  #head(column) {
    const title = TITLES[column] ?? column[0].toUpperCase() + column.slice(1);
    const sort = () => {
      this.#descending = this.#column === column ? !this.#descending : column !== "asset";
      this.#column = column;
      this.#draw();
    };
    return el("th", { scope: "col", class: column === "asset" ? null : "is-number" },
      el("button", { type: "button", class: "sort", onclick: sort }, title));
  }

  /** @param {any[]} balances */
  show(balances) {
    this.#balances = balances;
    this.#draw();
  }

  /** Mark the asset that the history shows. @param {string} asset */
  showChosen(asset) {
    this.#chosen = asset;
    this.#draw();
  }

  #draw() {
    for (const [column, head] of this.heads)
      setAttribute(head, "aria-sort", column === this.#column ? (this.#descending ? "descending" : "ascending") : null);
    const sorted = sortBalances(this.#balances, this.#column, this.#descending);
    const shown = this.#isWhole ? sorted : sorted.slice(0, SHOWN_AT_FIRST);
    this.more.hidden = shown.length === sorted.length;
    setText(this.more, `Show all ${plural(sorted.length, "asset")}`);
    this.empty.hidden = sorted.length > 0;
    setText(this.empty, "No balance was accepted yet, or the account is empty");
    keyed(this.body, shown, ({ asset }) => asset, () => this.#make(), (row, balance) => this.#fill(row, balance));
  }

  #make() {
    const button = el("button", { type: "button", class: "asset", title: "Show its history", onclick: () => {
      this.#choose(button.dataset.asset === this.#chosen ? "" : button.dataset.asset);
    } });
    const cells = AMOUNTS.map((column) => el("td", { class: "is-number amount", "data-column": column }));
    return Object.assign(el("tr", {}, el("th", { scope: "row" }, button), ...cells), { button, amounts: cells });
  }

  #fill(row, balance) {
    row.button.dataset.asset = balance.asset;
    setText(row.button, balance.asset);
    setAttribute(row.button, "aria-pressed", String(balance.asset === this.#chosen));
    AMOUNTS.forEach((column, index) => {
      const cell = row.amounts[index];
      if (cell.dataset.text === String(balance[column])) return;
      cell.dataset.text = String(balance[column]);
      fillAmount(cell, balance[column]);
      cell.classList.toggle("is-zero", balance[column] === "0");
    });
  }
}
