// How the desk is asked: a plain answer, or one that streams. Each calls back with what it says; nothing here draws.

/** What went wrong, for a person. `after` is in seconds, where it is known when to come back. */
export class Refused extends Error {
  constructor(status, title, after) {
    super(title);
    this.status = status;
    this.after = after;
  }
}

async function refusalOf(response) {
  let title = "";
  try {
    const problem = await response.json();
    title = typeof problem.title === "string" ? problem.title : typeof problem.detail === "string" ? problem.detail : "";
  } catch { /* no JSON: the status says enough */ }
  const after = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  return new Refused(response.status, title, Number.isFinite(after) ? after : null);
}

/** Any method. Raises Refused for all but 2xx. */
export async function send(method, path, key, more = {}) {
  const headers = { authorization: `Bearer ${key}`, ...more.headers };
  const response = await fetch(path, { ...more, method, headers });
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** POST, as JSON. */
export function post(path, key, body, signal) {
  return send("POST", path, key, { headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
}

/** GET, as JSON. */
export async function get(path, key, signal) {
  return (await send("GET", path, key, { signal })).json();
}

/** GET, as text. */
export async function textOf(path, key) {
  return (await send("GET", path, key)).text();
}

/** GET again and again, a little later each time, until it is what is waited for. */
export async function until(path, key, signal, there) {
  for (let wait = 250; ; wait = Math.min(2 * wait, 4000)) {
    const found = await get(path, key, signal);
    if (there(found)) return found;
    await new Promise((done, stopped) => {
      const timer = setTimeout(done, wait);
      signal.addEventListener("abort", () => { clearTimeout(timer); stopped(signal.reason); }, { once: true });
    });
  }
}

/** Say one thing on a WebSocket, and give what is answered. No header can be sent with one: the key is offered as a protocol. */
export function talk(path, key, text, signal) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return new Promise((done, failed) => {
    const socket = new WebSocket(url, ["desk", `desk-key.${key}`]);
    signal.addEventListener("abort", () => { socket.close(); failed(signal.reason); }, { once: true });
    socket.addEventListener("open", () => socket.send(text));
    socket.addEventListener("message", (event) => { done(JSON.parse(event.data)); socket.close(); });
    socket.addEventListener("close", (event) => failed(new Refused({ 1008: 402, 1013: 429 }[event.code] ?? null, event.reason, null)));
  });
}

/** Split what has come into whole events and the rest. */
export function eventsIn(text) {
  const parts = text.replaceAll("\r\n", "\n").split("\n\n");
  const rest = parts.pop();
  const events = parts.map((part) => {
    const event = { name: "message", data: "" };
    for (const line of part.split("\n")) {
      if (line.startsWith("event:")) event.name = line.slice(6).trim();
      if (line.startsWith("data:")) event.data += line.slice(5).trimStart();
    }
    return event;
  });
  return [events, rest];
}

/** Read a chat: `onText` gets each piece as it comes. Gives the reasons that end it. */
export async function chat(path, key, body, signal, onText) {
  const response = await post(path, key, body, signal);
  const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let why = null;
  for (let rest = ""; ;) {
    const { done, value } = await pieces.read();
    if (done) break;
    const [events, left] = eventsIn(rest + value);
    rest = left;
    for (const event of events) {
      if (!event.data) continue;
      const data = JSON.parse(event.data);
      if (event.name === "message") onText(data);
      else if (event.name === "why") why = data;
      else if (event.name === "error") throw new Refused(data.status, data.title, null);
    }
  }
  if (why === null) throw new Refused(0, "The answer was cut off.", null);
  return why;
}
