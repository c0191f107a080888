// What the daemon's single words mean, in sentences. Pure.

import { plural, span } from "./format.js";

/** States of accounts, worst first, with what they mean. */
export const STATES = {
  stale: "no good answer for several intervals",
  quarantined: "the exchange refuses the key",
  keyless: "the place where the key is kept cannot be reached",
  ok: "answers well",
};

const CAUSES = {
  rate_limited: "the exchange answered 429: the address used too much weight",
  banned: "the exchange has banned this address (418)",
  blocked: "the exchange's firewall blocks this address (403)",
  restricted: "the exchange does not serve this address's region (451)",
  overloaded: "the exchange is overloaded",
  maintenance: "the exchange is under maintenance",
  access_denied: "most keys of this address are refused alike, so the address is to blame, not the accounts",
  clock_skew: "the clocks of the exchange and of this machine differ",
  unavailable: "the exchange is not available",
  no_response: "the exchange does not answer",
  outbox_full: "the outbox is full, so nothing more can be accepted",
};

/** Words as a sentence. @param {string} words */
export function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}

/** Why an address is silent. @param {string} cause */
export function pauseCause(cause) {
  if (Object.hasOwn(CAUSES, cause)) return CAUSES[cause];
  return cause ? cause.replaceAll("_", " ") : "no cause was given";
}

/**
 * The daemon in one word, and what is wrong in words.
 * @param {any} status
 * @returns {{word: string, ok: boolean, wrong: string[]}}
 */
export function verdict(status) {
  const wrong = status.ready.filter((check) => !check.ok).map((check) => check.text || check.name);
  return { word: wrong.length ? "Not ready" : "Ready", ok: !wrong.length, wrong };
}

/** What a master account said that does not fit the configuration, a phrase each. */
export function discoveryFindings(discovery) {
  const list = (names) => (names.length > 6 ? `${names.slice(0, 6).join(", ")} and ${names.length - 6} more` : names.join(", "));
  const phrases = [];
  if (discovery.error) phrases.push(`could not be asked: ${discovery.error}`);
  if (discovery.missing.length)
    phrases.push(`${plural(discovery.missing.length, "sub-account")} without an account here: ${list(discovery.missing)}`);
  if (discovery.frozen.length) phrases.push(`${discovery.frozen.length} frozen by the exchange: ${list(discovery.frozen)}`);
  if (discovery.gone.length) phrases.push(`${discovery.gone.length} configured but gone: ${list(discovery.gone)}`);
  return phrases;
}

/** A change of balances or of a state, as the words after the account's name. @returns {string} */
export function happeningText(happening) {
  if (happening.kind === "status") return `is ${happening.reason}${happening.text ? `: ${happening.text}` : ""}`;
  if (!happening.changes.length) return happening.reason === "first" ? "first snapshot" : "snapshot";
  const shown = happening.changes.slice(0, 3);
  const more = happening.changes.length - shown.length;
  const texts = shown.map(({ asset, field, before, after }) => `${asset} ${field} ${before} \u2192 ${after}`);
  return texts.join(", ") + (more ? ` and ${more} more` : "");
}

/** What is wrong with a sink, worst first; empty if nothing is. */
export function sinkTroubles(sink) {
  const troubles = [];
  if (sink.failing_s > 0) troubles.push(`failing for ${span(sink.failing_s)}`);
  if (sink.is_open) troubles.push("breaker open: single records are tried");
  if (sink.error) troubles.push(sink.error);
  return troubles;
}
