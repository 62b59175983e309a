// The page: who asks, what for, and where the answer goes.
import { behind } from "./behind.js";
import { KINDS, plan } from "./kinds.js";
import { post, Refused } from "./stream.js";
import { entry, inWords, make, sourceOf } from "./answer.js";

// Keys of the demo. A real app has people sign in.
const KEYS = { acme: "desk-acme", globex: "desk-globex", initech: "desk-initech" };

const at = (id) => document.getElementById(id);
const list = at("list");
const histories = {};
let running = null;

function choices(field, name, options) {
  let group = "";
  for (const [value, label, of = ""] of options) {
    if (of !== group) field.append(make("span", { class: "group" }, group = of));
    const input = make("input", { type: "radio", name, value, id: `${name}-${value}` });
    input.checked = value === options[0][0];
    field.append(make("span", {}, input, make("label", { for: input.id }, label)));
  }
}

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function showExamples() {
  const kind = KINDS[chosen("kind")];
  at("note").textContent = kind.note;
  document.querySelector("label[for=text]").textContent = kind.many ? "Your texts, one on each line" : "Your question";
  const texts = kind.examples.map((text) => {
    const button = make("button", { type: "button", class: "quiet" }, text.replaceAll("\n", " · "));
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
    const found = await plan(KEYS[who]);
    if (who !== chosen("who")) return;
    at("plan").value = found.share;
    at("plan-text").textContent = `${found.left} left of ${found.limit}`;
  } catch {
    at("plan-text").textContent = "What is left is not known right now.";
  }
}

async function ask(question) {
  const [who, kind] = [chosen("who"), chosen("kind")];
  const [key, { title, run }] = [KEYS[who], KINDS[kind]];
  at("none").hidden = true;
  const shown = entry(list, who, title, question);
  running = new AbortController();
  busy(true);
  let said = "";
  const add = (piece) => { said += piece; shown.add(piece); };
  try {
    const history = histories[who] ?? [];
    const why = await run({ key, text: question, history, signal: running.signal, ...shown, add, said: sourceOf });
    if (kind === "chat") {
      histories[who] = [...history, { role: "user", content: question }, { role: "assistant", content: said }];
    }
    if (why) {
      shown.settle(why, async (good) => (await (await post("grade", key, { handle: why.handle, good })).json()).counted);
    }
    at("status").textContent = why ? `${why.tier} answered, for ${why.cost}.` : "Done.";
    at("text").value = "";
  } catch (error) {
    if (error.name === "AbortError") {
      shown.stopped(kind);
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
choices(at("kind"), "kind", Object.entries(KINDS).map(([kind, { name, group }]) => [kind, name, group]));
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
behind(() => chosen("who"), showPlan);
