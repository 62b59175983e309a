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

/** POST, as JSON. Raises Refused for all but 2xx. */
export async function post(path, key, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await refusalOf(response);
  return response;
}

/** GET, as JSON. */
export async function get(path, key) {
  const response = await fetch(path, { headers: { authorization: `Bearer ${key}` } });
  if (!response.ok) throw await refusalOf(response);
  return response.json();
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
