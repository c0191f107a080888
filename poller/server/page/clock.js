// The daemon's clock as seen from here: the page's ages are differences to it, never to the reader's own.

export class ServerClock {
  #heard_ms = Date.now();
  #local_ms;
  #local;
  #stopped = false;

  /** @param {() => number} [local] milliseconds that never step */
  constructor(local = () => performance.now()) {
    this.#local = local;
    this.#local_ms = local();
  }

  /** Something came, with the daemon's time of it. @param {string} at RFC 3339 */
  heard(at) {
    const heard_ms = Date.parse(at);
    if (Number.isNaN(heard_ms)) return;
    this.#heard_ms = heard_ms;
    this.#local_ms = this.#local();
    this.#stopped = false;
  }

  /** Stand still: what happened since is not known. */
  stop() {
    if (this.#stopped) return;
    this.#heard_ms = this.now();
    this.#stopped = true;
  }

  /** The daemon's time, milliseconds since the epoch. */
  now() {
    return this.#stopped ? this.#heard_ms : this.#heard_ms + this.#local() - this.#local_ms;
  }

  /** Seconds until an RFC 3339 instant; negative once it is over. @param {string} at */
  until_s(at) {
    return (Date.parse(at) - this.now()) / 1000;
  }
}
