// What is new, as it happens: server-sent events while the page can be seen; asked for every few seconds where those are
// refused.

const POLL = 5_000;
const AGAIN = 30_000;
const UNSEEN = 3_000; // a stream that ends and begins again is none of the viewer's business
const SIGNED_OUT = new Set([401, 403]);

/** Where something of this page is, whatever path it is mounted at. */
const at = (path) => new URL(path, document.baseURI);

/** GETs JSON. An Error with `status`, and a sentence to show, where that fails. */
export async function get(path, options = {}) {
  const response = await fetch(at(path), { headers: { accept: "application/json" }, cache: "no-store", ...options });
  if (response.ok) return response.json();
  throw Object.assign(new Error(await sentenceOf(response)), { status: response.status });
}

/** POSTs. An Error with a sentence to show where it was not done. */
export async function post(path, body, csrf) {
  const response = await fetch(at(path), {
    method: "POST",
    headers: { "content-type": "application/json", "x-tierline-csrf": csrf ?? "" },
    ...(body !== null && { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(await sentenceOf(response));
}

async function sentenceOf(response) {
  if (response.status === 401) return "You are signed out: load the page again.";
  try {
    const body = await response.json();
    if (typeof body.error === "string") return body.error;
  } catch {
    // No JSON: the status has to do.
  }
  return `The server answered ${response.status}${response.statusText ? ` ${response.statusText}` : ""}.`;
}

/**
 * Calls `overview(value)`, `decisions(rows)`, and `state(word, sentence)` with connecting, live, polling, reconnecting,
 * paused (the tab is hidden) or stopped (only a person can help).
 */
export class Live {
  #hears;
  #hours;
  #source = null;
  #timer = 0;
  #late = 0;
  #turn = 0;

  constructor(hears) {
    this.#hears = hears;
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#seen());
  }

  /** Begin, or begin again with another period. */
  watch(hours) {
    this.#hours = hours;
    this.#close();
    this.#hears.state("connecting");
    if (document.hidden) this.#ask().then(() => this.#seen());
    else this.#open();
  }

  #seen() {
    if (this.#hours === undefined) return;
    this.#close();
    if (document.hidden) this.#hears.state("paused");
    else this.#open();
  }

  #close() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#calm();
    this.#source?.close();
    this.#source = null;
  }

  /** There is no need to say that the stream is away. */
  #calm() {
    clearTimeout(this.#late);
    this.#late = 0;
  }

  #open() {
    const source = new EventSource(at(`api/events?hours=${this.#hours}`));
    this.#source = source;
    const hear = (name, tell) =>
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#calm();
        this.#hears.state("live");
        tell(JSON.parse(event.data));
      });
    hear("overview", this.#hears.overview);
    hear("decisions", this.#hears.decisions);
    source.onerror = () => {
      if (source !== this.#source) return;
      // The browser tries again by itself, unless the answer was no event stream at all.
      if (source.readyState === EventSource.CLOSED) this.#poll(Date.now() + AGAIN);
      else this.#late ||= setTimeout(() => this.#hears.state("reconnecting"), UNSEEN);
    };
  }

  /** Ask until it is time to try events again. */
  async #poll(until) {
    this.#close();
    const turn = this.#turn;
    const answered = await this.#ask();
    if (turn !== this.#turn || answered === "stopped") return;
    if (Date.now() >= until) this.#open();
    else this.#timer = setTimeout(() => this.#poll(until), POLL);
  }

  async #ask() {
    const turn = this.#turn;
    try {
      const [overview, decisions] = await Promise.all([
        get(`api/overview?hours=${this.#hours}`),
        get("api/decisions?most=50"),
      ]);
      if (turn !== this.#turn) return "old";
      this.#hears.state("polling");
      this.#hears.overview(overview);
      this.#hears.decisions(decisions.rows);
      return "polling";
    } catch (error) {
      if (turn !== this.#turn) return "old";
      const stopped = SIGNED_OUT.has(error.status);
      this.#hears.state(stopped ? "stopped" : "reconnecting", stopped ? error.message : "");
      return stopped ? "stopped" : "reconnecting";
    }
  }
}
