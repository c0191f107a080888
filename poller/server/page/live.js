// The stream of events: keeps it going, notices when it is cut off, and leads to the login when that is asked.

const RETRY_MS = 2_000;
const QUIET_MS = 15_000; // the daemon says something every second or so; a dead network says nothing at all
const PROBE_MS = 5_000;

/** A request of the API. Throws an Error with the daemon's own words; 401 leads to the login. */
export async function ask(path, signal = AbortSignal.timeout(PROBE_MS * 2)) {
  const response = await fetch(path, { headers: { accept: "application/json" }, signal });
  if (response.status === 401) {
    location.assign("/login");
    throw new Error("please sign in");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const error = new Error(body?.error ?? `the daemon answered ${response.status}`);
  throw Object.assign(error, { status: response.status });
}

export class Live {
  #store;
  /** @type {EventSource|null} */
  #source = null;
  #heard_ms = performance.now();
  #isProbing = false;
  #retry = 0;
  #failures = 0;

  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.#store = store;
    setInterval(() => this.#watch(), 1_000);
    this.#open();
  }

  #open() {
    clearTimeout(this.#retry);
    this.#source?.close();
    const source = new EventSource("/api/events");
    this.#source = source;
    const take = (kind, use) =>
      source.addEventListener(kind, (event) => {
        this.#heard();
        use(JSON.parse(/** @type {MessageEvent} */ (event).data));
      });
    const store = this.#store;
    take("hello", (hello) => {
      store.takeHello(hello);
      this.#catchUp();
    });
    take("fleet", (fleet) => store.takeFleet(fleet));
    take("status", (status) => store.takeStatus(status));
    take("egress", (egress) => store.takeEgress(egress));
    take("sinks", (sinks) => store.takeSinks(sinks));
    take("happening", (happening) => store.takeHappenings([happening]));
    source.addEventListener("error", () => {
      store.setLive(false, this.#heard_ms);
      // A refused stream is not tried again by the browser itself.
      if (source.readyState === EventSource.CLOSED) this.#later();
    });
  }

  #later() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(async () => {
      await ask("/api/status").catch(() => null); // leads to the login if that is what is missing
      this.#open();
    }, this.#failures++ ? RETRY_MS : 0);
  }

  #heard() {
    this.#failures = 0;
    this.#heard_ms = performance.now();
    this.#store.setLive(true, this.#heard_ms);
  }

  /** What happened before this page was opened, or while it was cut off. */
  async #catchUp() {
    const after = this.#store.happenings.at(-1)?.number ?? 0;
    const happenings = await ask(`/api/happenings?after=${after}`).catch(() => []);
    this.#store.takeHappenings(happenings);
  }

  async #watch() {
    this.#store.changed("tick");
    const isQuiet = performance.now() - this.#heard_ms > QUIET_MS;
    if (!isQuiet || this.#isProbing || this.#store.cut_ms !== null) return;
    this.#isProbing = true;
    try {
      this.#store.takeStatus(await ask("/api/status", AbortSignal.timeout(PROBE_MS)));
      this.#heard();
    } catch {
      this.#store.setLive(false, this.#heard_ms);
      this.#open();
    } finally {
      this.#isProbing = false;
    }
  }
}
