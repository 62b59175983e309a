// The page: who asks, what for, and where the answer goes.
import { chat, get, post, Refused } from "./stream.js";
import { entry, inWords, make } from "./answer.js";

// Keys of the demo. A real app has people sign in.
const KEYS = { acme: "desk-acme", globex: "desk-globex", initech: "desk-initech" };

const KINDS = {
  answer: {
    name: "an answer", title: "answer", path: "answer",
    examples: ["Are you open on Saturday?", "My brakes squeak in the rain. What should I check first, and why?"],
  },
  chat: {
    name: "to chat", title: "chat", path: "chat",
    examples: ["Compare two bikes for a hilly commute.", "And in French?"],
  },
  contract: {
    name: "a contract reviewed", title: "contract", path: "contracts",
    examples: ["The supplier may change prices at any time without notice.", "hi"],
  },
  order: {
    name: "an order read", title: "order", path: "order",
    examples: ["Two brake pads for my bike, please.", "Can I still order by mail?"],
  },
};

const at = (id) => document.getElementById(id);
const list = at("list");
const histories = {};
let running = null;

function choices(field, name, options) {
  for (const [value, label] of options) {
    const input = make("input", { type: "radio", name, value, id: `${name}-${value}` });
    input.checked = value === options[0][0];
    field.append(make("span", {}, input, make("label", { for: input.id }, label)));
  }
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function showExamples() {
  const texts = KINDS[chosen("kind")].examples.map((text) => {
    const button = make("button", { type: "button", class: "quiet" }, text);
    button.addEventListener("click", () => { at("text").value = text; at("text").focus(); });
    return make("li", {}, button);
  });
  at("examples").replaceChildren(...texts);
  showChat();
}

function showChat() {
  at("anew").hidden = chosen("kind") !== "chat" || !histories[chosen("who")]?.length;
}

async function showPlan() {
  const who = chosen("who");
  try {
    const plan = await get("plan", KEYS[who]);
    if (who !== chosen("who")) return;
    at("plan").value = plan.share;
    at("plan-text").textContent = `${plan.left} left of ${plan.limit}`;
  } catch {
    at("plan-text").textContent = "What is left is not known right now.";
  }
}

function textOf(answer) {
  if (!("order" in answer)) return answer.text;
  return answer.order ? `${answer.order.quantity} × ${answer.order.item}` : "There is no order in it.";
}

async function ask(question) {
  const [who, kind] = [chosen("who"), chosen("kind")];
  const [key, { title, path }] = [KEYS[who], KINDS[kind]];
  at("none").hidden = true;
  const shown = entry(list, who, title, question);
  running = new AbortController();
  busy(true);
  let said = "";
  const add = (piece) => { said += piece; shown.add(piece); };
  try {
    let why;
    if (kind === "chat") {
      const history = histories[who] ?? [];
      why = await chat(path, key, { text: question, history }, running.signal, add);
      histories[who] = [...history, { role: "user", content: question }, { role: "assistant", content: said }];
    } else {
      const answer = await (await post(path, key, { text: question }, running.signal)).json();
      add(textOf(answer));
      why = answer.why;
    }
    shown.settle(why, async (good) => (await (await post("grade", key, { handle: why.handle, good })).json()).counted);
    at("status").textContent = `${why.tier} answered, for ${why.cost}.`;
    at("text").value = "";
  } catch (error) {
    if (error.name === "AbortError") {
      shown.stopped(kind === "chat");
      at("status").textContent = "Stopped.";
    } else {
      const refused = error instanceof Refused ? error : new Refused(null, "", null);
      const words = inWords(refused, who);
      shown.refuse(refused, words);
      at("status").textContent = words;
    }
  } finally {
    running = null;
    busy(false);
    await showPlan();
  }
}

function busy(is) {
  at("send").disabled = is;
  at("stop").hidden = !is;
  if (is) at("status").textContent = "Asking…";
  showChat();
}

choices(at("who"), "who", Object.keys(KEYS).map((who) => [who, who]));
choices(at("kind"), "kind", Object.entries(KINDS).map(([kind, { name }]) => [kind, name]));
at("who").addEventListener("change", () => { showChat(); void showPlan(); });
at("kind").addEventListener("change", showExamples);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && at("text").value.trim()) void ask(at("text").value.trim());
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("stop").addEventListener("click", () => running?.abort());
at("anew").addEventListener("click", () => {
  histories[chosen("who")] = [];
  showChat();
  at("status").textContent = "A new chat begins.";
  at("text").focus();
});
showExamples();
void showPlan();
