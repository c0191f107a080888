// Starts the page: one store, one stream of events, and the view that the address names.

import { Account } from "./account.js";
import { Banners } from "./banners.js";
import { byId } from "./dom.js";
import { Egress } from "./egress.js";
import { Feed } from "./feed.js";
import { Fleet } from "./fleet.js";
import { Header } from "./header.js";
import { Live } from "./live.js";
import { Sinks } from "./sinks.js";
import { Store } from "./store.js";
import { themeButton } from "./theme.js";

const store = new Store();
const fleet = new Fleet(store, go);
const account = new Account(store);
let fleetPath = "/"; // with the query that was chosen last

/** The account that the address names; null on the fleet's own page. */
function named() {
  const found = /^\/account\/([^/]+)$/.exec(location.pathname);
  if (!found) return null;
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1];
  }
}

/** Go to an address of this page without loading it anew. @param {string} path */
function go(path) {
  if (!byId("fleet").hidden) {
    fleetPath = location.pathname + location.search;
    history.replaceState({ top: scrollY }, "");
  }
  history.pushState({ top: path === fleetPath ? lastTop : 0 }, "", path);
  show();
}

let lastTop = 0;

function show() {
  const name = named();
  const wasFleet = !byId("fleet").hidden;
  const isBack = !byId("account").hidden;
  if (wasFleet && name !== null) lastTop = scrollY;
  byId("fleet").hidden = name !== null;
  byId("account").hidden = name === null;
  account.show(name);
  if (name === null) {
    fleet.readAddress();
    store.changed("egress");
    store.changed("status");
    // The rows have to be there before the old place can be found again.
    requestAnimationFrame(() => {
      scrollTo({ top: history.state?.top ?? 0, behavior: "instant" });
      if (isBack) fleet.grid.focus();
    });
  } else {
    scrollTo({ top: 0, behavior: "instant" });
  }
}

history.scrollRestoration = "manual";
addEventListener("popstate", show);
document.addEventListener("click", (event) => {
  const link = /** @type {any} */ (event.target).closest?.("a[data-inside]");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.matches(".to-fleet") ? fleetPath : link.getAttribute("href"));
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && named() !== null && !event.defaultPrevented) go(fleetPath);
});

new ResizeObserver(() => {
  document.documentElement.style.setProperty("--top", `${byId("top").offsetHeight}px`);
}).observe(byId("top"));
themeButton(byId("theme"));
new Header(store, fleet, () => named() !== null && go(fleetPath));
new Banners(store);
new Egress(store);
new Sinks(store);
new Feed(store);
show();
new Live(store);
