// Which accounts are shown, in which order, and how a link says so. Pure.

/**
 * What the reader asked for; all of it is in the address, so that a link can be shared.
 * @typedef {object} Query
 * @property {string} q words that name, labels or error must contain
 * @property {string} state
 * @property {string} egress
 * @property {string} label `key=value`
 * @property {string} sort a column; "trouble" is the order without a choice
 * @property {boolean} turned the column the other way round
 */

/**
 * An account with what sorting and searching need.
 * @typedef {object} Row
 * @property {string} name
 * @property {any} summary
 * @property {string[]} labels as `key=value`
 * @property {string} search lower-case text that is searched
 * @property {number|null} value numeric key of `total_btc`; the text decides between equal keys
 * @property {number|null} good_ms
 * @property {number} period_s the interval as it is now
 * @property {number} rank the name's place among all names
 */

export const SORTS = ["trouble", "state", "account", "labels", "egress", "age", "lateness", "value", "error"];
const STATES = ["stale", "quarantined", "keyless", "ok"];

/** Freshness of a last good answer: the exchange needs a moment to answer, and so does this page. */
export function freshness(age_s, period_s) {
  if (age_s === null) return "none";
  if (age_s <= period_s * 1.05 + 2) return "good";
  return age_s <= period_s * 2 + 2 ? "late" : "old";
}

/** @param {Row} row @param {number} now_ms @returns {number|null} */
export function ageOf(row, now_ms) {
  return row.good_ms === null ? null : Math.max(0, (now_ms - row.good_ms) / 1000);
}

/** How much an account needs to be looked at; 0 is most. @param {Row} row @param {number} now_ms */
export function trouble(row, now_ms) {
  const state = STATES.indexOf(row.summary.state);
  if (state < 3) return state;
  if (row.summary.error) return 3;
  return freshness(ageOf(row, now_ms), row.period_s) === "old" ? 4 : 5;
}

/** @returns {Row} */
export function toRow(summary) {
  const labels = labelTexts(summary.labels);
  return {
    name: summary.account,
    summary,
    labels,
    search: [summary.account, ...labels, summary.error, summary.error_kind, summary.reason].join("\n").toLowerCase(),
    value: summary.total_btc === null ? null : Number(summary.total_btc),
    good_ms: summary.good_at === null ? null : Date.parse(summary.good_at),
    period_s: summary.interval_s * Math.max(1, summary.stretch),
    rank: 0,
  };
}

/** Labels as `key=value`. @param {Record<string, string>} labels */
export function labelTexts(labels) {
  return Object.entries(labels).map(([key, value]) => `${key}=${value}`);
}

/** Compare two amounts exactly, whatever their length. @param {string} left @param {string} right */
export function compareAmounts(left, right) {
  const negative = left.startsWith("-");
  if (negative !== right.startsWith("-")) return negative ? -1 : 1;
  if (negative) return compareAmounts(right.slice(1), left.slice(1));
  const [a, aFraction = ""] = left.split(".");
  const [b, bFraction = ""] = right.split(".");
  if (a.length !== b.length) return a.length - b.length;
  const width = Math.max(aFraction.length, bFraction.length);
  const [x, y] = [a + aFraction.padEnd(width, "0"), b + bFraction.padEnd(width, "0")];
  return x < y ? -1 : x > y ? 1 : 0;
}

const compareTexts = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** Keys by column. A null goes last whichever way the column is turned. */
const KEYS = {
  trouble: (row, now) => trouble(row, now),
  state: (row) => STATES.indexOf(row.summary.state),
  account: (row) => row.rank,
  labels: (row) => row.labels.join(" ") || null,
  egress: (row) => row.summary.egress,
  age: (row, now) => ageOf(row, now),
  lateness: (row) => row.summary.lateness_s,
  value: (row) => row.value,
  error: (row) => row.summary.error || null,
};

/** Columns of which the most is looked for first. */
const MOST_FIRST = new Set(["age", "lateness", "value"]);

/** Whether a column, turned that way, counts down. */
export function isDescending(sort, turned) {
  return MOST_FIRST.has(sort) !== turned;
}

/**
 * The rows that a query asks for, in its order.
 * @param {Iterable<Row>} rows
 * @param {Query} query
 * @param {number} now_ms
 * @returns {Row[]}
 */
export function arrange(rows, query, now_ms) {
  const words = query.q.toLowerCase().split(/\s+/).filter(Boolean);
  const keyOf = KEYS[query.sort] ?? KEYS.trouble;
  const wanted = [];
  for (const row of rows) {
    const { summary } = row;
    if (query.state && summary.state !== query.state) continue;
    if (query.egress && summary.egress !== query.egress) continue;
    if (query.label && !row.labels.includes(query.label)) continue;
    if (words.length && !words.every((word) => row.search.includes(word))) continue;
    wanted.push({ row, key: keyOf(row, now_ms) });
  }
  const way = isDescending(query.sort, query.turned) ? -1 : 1;
  wanted.sort((a, b) => {
    if (a.key !== b.key) {
      if (a.key === null) return 1;
      if (b.key === null) return -1;
      return way * compareTexts(a.key, b.key);
    }
    if (query.sort === "value" && a.key !== null) {
      const exact = way * compareAmounts(a.row.summary.total_btc, b.row.summary.total_btc);
      if (exact) return exact;
    }
    return a.row.rank - b.row.rank;
  });
  return wanted.map(({ row }) => row);
}

/** @param {string} search the address's query part @returns {Query} */
export function readQuery(search) {
  const given = new URLSearchParams(search);
  const sort = given.get("sort") ?? "";
  return {
    q: given.get("q") ?? "",
    state: STATES.includes(given.get("state") ?? "") ? given.get("state") ?? "" : "",
    egress: given.get("egress") ?? "",
    label: given.get("label") ?? "",
    sort: SORTS.includes(sort) ? sort : "trouble",
    turned: given.get("turned") === "1",
  };
}

/** The query part of the address; empty if nothing was chosen. @param {Query} query */
export function writeQuery(query) {
  const given = new URLSearchParams();
  for (const key of ["q", "state", "egress", "label"]) if (query[key]) given.set(key, query[key]);
  if (query.sort !== "trouble") given.set("sort", query.sort);
  if (query.turned) given.set("turned", "1");
  const text = given.toString();
  return text && `?${text}`;
}
