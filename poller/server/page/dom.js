// Making elements. Data becomes text nodes and attributes only, never markup.

import { visible } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] `on` + event: a listener; `style`: CSS properties set one by
 *     one; `text`: its text; anything else an attribute, left out when false or null.
 * @param {...(Node|string|null|undefined)} children strings become text
 * @returns {any}
 */
export function el(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** Make an SVG element, as `el` does. @returns {any} */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = visible(String(value));
    else if (name === "style") for (const [key, set] of Object.entries(value)) element.style.setProperty(key, set);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined) continue;
    element.append(typeof child === "string" ? visible(child) : child);
  }
  return element;
}

/** Set text where it differs: what is the same is not drawn again. */
export function setText(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Set an attribute where it differs; null takes it away. */
export function setAttribute(element, name, value) {
  const shown = name === "title" && value !== null ? visible(value) : value;
  if (shown === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== shown) element.setAttribute(name, shown);
}

/** The element with that id, which index.html has. @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Keep one child a key, in the keys' order: what stays keeps its element, and with it focus and scrolling.
 * @template T
 * @param {Element} parent
 * @param {readonly T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => Element} make
 * @param {(element: any, item: T) => void} fill
 */
export function keyed(parent, items, key, make, fill) {
  const old = new Map();
  for (const child of [...parent.children]) {
    const name = /** @type {any} */ (child).dataset.key;
    old.get(name)?.remove(); // of two with one key the last is kept
    old.set(name, child);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      /** @type {any} */ (child).dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    fill(child, item);
  }
  for (const child of old.values()) child.remove();
}
