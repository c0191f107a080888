// Numbers, amounts and times as text. Pure; amounts stay text, no digit is lost.

const THIN = "\u202f"; // a narrow space that does not break
const DASH = "\u2013";
// What has no shape, or turns the direction of what follows, is shown by its number.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Text with every character that cannot be seen written out: what looks like a name is that name. */
export function visible(text) {
  return text.replace(UNSEEN, (character) => `\u27e8${character.codePointAt(0)?.toString(16).toUpperCase()}\u27e9`);
}

/** An exact amount in two parts, the whole digits grouped: ["1 234", ".5"]. @param {string} text */
export function amountParts(text) {
  const [whole, fraction] = text.split(".");
  return [whole.replace(/\B(?=(\d{3})+$)/g, THIN), fraction === undefined ? "" : `.${fraction}`];
}

/** An exact amount, its whole digits grouped. @param {string|null} text */
export function amount(text) {
  return text === null ? DASH : amountParts(text).join("");
}

/** A count, grouped. @param {number} number */
export function count(number) {
  return amount(String(Math.round(number)));
}

/** Few digits for a measurement: 0.04, 3.7, 41, 1 204. @param {number} number */
export function figure(number) {
  const size = Math.abs(number);
  if (size >= 100) return count(number);
  const text = number.toFixed(size >= 10 ? 1 : 2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** Bytes with a binary unit. @param {number} bytes */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (number >= 1024 && power < units.length - 1) {
    number /= 1024;
    power += 1;
  }
  return `${figure(number)} ${units[power]}`;
}

/** A length of time in one unit, for a column of them: 0.4 s, 12 s, 5 min, 3 h, 2 d. @param {number|null} seconds */
export function age(seconds) {
  if (seconds === null) return DASH;
  const s = Math.max(0, seconds);
  if (s < 120) return `${Math.floor(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

/** An interval as configured: 60 s, 5 min, 1 h; nothing is rounded away. @param {number} seconds */
export function interval(seconds) {
  if (seconds < 120 || seconds % 60) return `${figure(seconds)} s`;
  if (seconds < 7200 || seconds % 3600) return `${figure(seconds / 60)} min`;
  return `${figure(seconds / 3600)} h`;
}

/** A length of time in two units: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. @param {number} seconds */
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const pairs = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = pairs.findIndex(([size]) => s >= size);
  if (first < 0) return "0 s";
  const [size, unit] = pairs[first];
  const head = `${Math.floor(s / size)} ${unit}`;
  const next = pairs[first + 1];
  const rest = next ? Math.floor((s % size) / next[0]) : 0;
  return rest ? `${head} ${rest} ${next[1]}` : head;
}

/** What is short to the millisecond: 4 ms, 0.31 s, 12 s. @param {number|null} seconds */
export function short(seconds) {
  if (seconds === null) return DASH;
  if (Math.abs(seconds) < 0.1) return `${Math.round(seconds * 1000)} ms`;
  if (Math.abs(seconds) < 10) return `${seconds.toFixed(2)} s`;
  return seconds < 120 ? `${Math.round(seconds)} s` : span(seconds);
}

/** Seconds to go, like a clock: 0:42, 12:05, 1:02:03. @param {number} seconds */
export function countdown(seconds) {
  const s = Math.max(0, Math.ceil(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [h, m] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60)];
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

/** The time of day of an RFC 3339 instant in UTC. @param {string|null} at */
export function timeOfDay(at) {
  return at === null ? DASH : at.slice(11, 19);
}

/** Day and time of an RFC 3339 instant in UTC. @param {string|null} at */
export function dayAndTime(at) {
  return at === null ? DASH : `${at.slice(0, 10)} ${at.slice(11, 19)}`;
}

/** A share as a percentage: 0 % only if it is nothing. @param {number} part @param {number} whole */
export function percent(part, whole) {
  if (!whole || !part) return "0 %";
  const share = (part / whole) * 100;
  return share < 1 ? "< 1 %" : `${Math.floor(share)} %`;
}

/** One or many: plural(1, "account") is "1 account". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
