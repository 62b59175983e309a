// The tour: what can be asked of the desk, what of Tierline it shows, and how. Each tells its entry what came.
import { chat, get, post, talk, until } from "./stream.js";

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const asked = (path) => async (it) => {
  const answer = await (await post(path, it.key, { text: it.text }, it.signal)).json();
  it.add(answer.text);
  return answer.why;
};

/** `run` gets { key, text, history, signal, add, show, plain, said } and gives the reasons of the answer, or nothing. */
export const KINDS = {
  answer: {
    group: "One answer", name: "an answer", title: "answer", run: asked("answer"),
    note: "No rule but the budgets: how hard the question looks decides.",
    examples: ["Are you open on Saturday?", "My brakes squeak in the rain. What should I check first, and why?"],
  },
  chat: {
    group: "One answer", name: "to chat", title: "chat",
    note: "A stream. The conversation stays where its prompt cache is warm; Stop leaves in the middle, and what had come is charged.",
    examples: ["Compare two bikes for a hilly commute.", "And in French?"],
    run: (it) => chat("chat", it.key, { text: it.text, history: it.history }, it.signal, it.add),
  },
  talk: {
    group: "One answer", name: "to talk", title: "WebSocket",
    note: "A WebSocket: each message is a call of its own, for the tenant of the handshake.",
    examples: ["Are you open on Sunday? Yes or no.", "Thanks!"],
    run: async (it) => {
      const answer = await talk("live", it.key, it.text, it.signal);
      it.add(answer.text);
      return answer.why;
    },
  },
  ticket: {
    group: "With a rule of its route", name: "a ticket sorted", title: "ticket", run: asked("classify"),
    note: "policy(task=…, expected_output=10, quality=0.9): a task with short answers, where nine tenths of the top tier's quality will do.",
    examples: ["I was charged twice for my brake pads"],
  },
  contract: {
    group: "With a rule of its route", name: "a contract reviewed", title: "contract", run: asked("contracts"),
    note: "policy(floor=\"sonnet\", critical=True): never cheaper than Sonnet, and no budget makes it cheaper.",
    examples: ["The supplier may change prices at any time without notice.", "hi"],
  },
  order: {
    group: "With a rule of its route", name: "an order read", title: "order",
    note: "policy(escalate=True): the cheapest tier reads it; what is no order by its form is read again by the next.",
    examples: ["Two brake pads for my bike, please.", "Can I still order by mail?"],
    run: async (it) => {
      const { order, why } = await (await post("order", it.key, { text: it.text }, it.signal)).json();
      it.add(order ? `${order.quantity} × ${order.item}` : "There is no order in it.");
      return why;
    },
  },
  summary: {
    group: "With a rule of its route", name: "a summary", title: "summary", run: asked("summary"),
    note: "policy(label=\"simple\") on a synchronous endpoint: the app says how hard it is, and nobody is asked.",
    examples: ["I bought a bike in May. The display went dark in June, and again in July."],
  },
  expert: {
    group: "With a rule of its route", name: "the expert", title: "expert", run: asked("expert"),
    note: "policy(tier=\"opus\"): a pin.",
    examples: ["hi"],
  },
  old: {
    group: "With a rule of its route", name: "old code", title: "old code", run: asked("old"),
    note: "The code names claude-opus-5-5; policy(explicit_model=\"ceiling\") makes that the most that it gets.",
    examples: ["Are you open on Saturday?"],
  },
  quick: {
    group: "With a rule of its route", name: "it quickly", title: "quick", run: asked("quick"),
    note: "policy(speculate=True): where nobody is sure, the cheapest tier answers while it is asked how hard it is.",
    examples: ["hi", "Tell me about warranties"],
  },
  agent: {
    group: "More than one call", name: "an agent", title: "agent",
    note: "policy(per_step=True) and Budget(\"$0.08\", per=\"run\"): each step on its own tier, and all of them within one budget.",
    examples: ["Where is my order 4711, and when can it come?"],
    run: async (it) => {
      const found = await (await post("agent", it.key, { text: it.text }, it.signal)).json();
      it.add(found.text);
      it.show("Steps", ["Called", "Tier", "Chosen by", "Cost"],
        found.steps.map(({ tools, why }) => [tools.join(", ") || "nothing: it answers", why.tier, it.said(why.source), why.cost]));
      it.plain(`${found.steps.length} steps cost ${found.cost}, all charged to this run.`);
      return null;
    },
  },
  sort: {
    group: "More than one call", name: "many sorted", title: "labels", many: true,
    note: "router.classify_many: a label for each line, many in one request; what is known is not asked again.",
    examples: ["I was charged twice\nMy parcel never came\nThe display is dark\nI was charged twice"],
    run: async (it) => {
      const texts = lines(it.text);
      const found = await (await post("sort", it.key, { texts }, it.signal)).json();
      it.show("Labels", ["Mail", "Label"], texts.map((text, place) => [text, found.labels[place] ?? "none"]));
      it.plain(`${found.asked} asked for in ${found.requests} request${found.requests === 1 ? "" : "s"}, ${found.cached} known already, for ${found.cost}.`);
      return null;
    },
  },
  later: {
    group: "For half the price", name: "it later", title: "later",
    note: "router.batches.defer: 202 at once, then sent in a batch with others. In this demo it waits five seconds; a desk waits for the night.",
    examples: ["Sum up: the display went dark in June, and again in July."],
    run: async (it) => {
      const answer = await post("later", it.key, { text: it.text }, it.signal);
      it.waiting("202: it will be answered later. Waiting for it…");
      const place = new URL(answer.headers.get("location")).pathname.slice(1);
      const found = await until(place, it.key, it.signal, (told) => told.state !== "pending");
      const text = found.message?.content.filter((block) => block.type === "text").map((block) => block.text).join("");
      it.add(text ?? `It came to nothing: ${found.outcome}.`);
      it.plain(found.message ? `${found.message.model} answered it.` : "");
      return null;
    },
  },
  job: {
    group: "For half the price", name: "a job", title: "job", many: true,
    note: "router.batches.submit: a draft for each line, each routed by itself, all in one batch.",
    examples: ["My brakes squeak.\nHow do I reset the display, and does that lose my settings?"],
    run: async (it) => {
      const texts = lines(it.text);
      const { id } = await (await post("jobs", it.key, { texts }, it.signal)).json();
      it.waiting(`202: job ${id.slice(-6)} is on its way. Waiting for it…`);
      const found = await until(`jobs/${encodeURIComponent(id)}`, it.key, it.signal, (told) => told.state === "ended");
      it.show("Drafts", ["Mail", "Tier", "Cost", "Draft"],
        found.results.map((each, place) => [texts[place], each.tier, each.cost, each.text || each.outcome]));
      it.plain(`${found.succeeded} of ${found.submitted} came back, for ${found.cost}.`);
      return null;
    },
  },
};

export const plan = (key) => get("plan", key);
