// Behind the desk: what an operator looks at, and what moves it. The keys are those of the demo.
import { get, send, textOf } from "./stream.js";
import { make, inWords } from "./answer.js";

const KEY = "desk-operator";
const VIEWS = {
  balances: ["Balances", "operator/balances"],
  holds: ["In flight", "operator/holds"],
  history: ["Spent", "operator/history"],
  refusal: ["Last refusal", "operator/refusal"],
  report: ["Report", "operator/report"],
  shadows: ["Shadows", "operator/shadows"],
  metrics: ["Metrics", "operator/metrics"],
};
const at = (id) => document.getElementById(id);
const dollars = (nano) => `$${(nano / 1e9).toFixed(6).replace(/0{1,4}$/, "")}`;

function balancesOf(rows) {
  if (!rows.length) return "Nothing was charged yet.";
  return rows.map((row) => `${row.budget.padEnd(22)} ${row.account.slice(0, 24).padEnd(24)} ${dollars(row.spent).padStart(12)} of ${dollars(row.limit).padStart(10)}` +
    `${row.held ? `, ${dollars(row.held)} held` : ""}`).join("\n");
}

function shadowsOf(rows) {
  if (!rows.length) return "None yet. Start the desk with TIERLINE_SHADOW=0.2, and the tier above answers one call in five too.";
  return rows.map((row) => Object.entries(row).filter(([, value]) => typeof value !== "object").map(([key, value]) => `${key} ${value}`).join(", ")).join("\n");
}

async function look(view) {
  const [title, path] = VIEWS[view];
  at("seen-title").textContent = title;
  try {
    if (view === "balances") at("seen").textContent = balancesOf(await get(path, KEY));
    else if (view === "report") at("seen").textContent = JSON.stringify(await get(path, KEY), null, 2);
    else if (view === "shadows") at("seen").textContent = shadowsOf(await get(path, KEY));
    else at("seen").textContent = await textOf(path, KEY);
  } catch (error) {
    at("seen").textContent = error.status === 404 ? "This process has refused nothing yet." : inWords(error, "the operator");
  }
  at("seen-box").hidden = false;
}

async function act(what, done) {
  try {
    await what();
    at("done").textContent = done;
  } catch (error) {
    at("done").textContent = error.status === 422 ? `That cannot be: ${error.message}.` : inWords(error, "the operator");
  }
}

/** Set it up. `who` gives the tenant that is chosen, `changed` is called when money has moved. */
export function behind(who, changed) {
  for (const [view, [name]] of Object.entries(VIEWS)) {
    const button = make("button", { type: "button", class: "quiet" }, name);
    button.addEventListener("click", () => void look(view));
    at("views").append(make("li", {}, button));
  }
  const limit = async (amount) => {
    const query = amount ? `?limit=${encodeURIComponent(amount)}` : "";
    await act(() => send("PUT", `operator/plans/${who()}${query}`, KEY),
      amount ? `The plan of ${who()} is ${amount} a day now, in all processes.` : `The plan of ${who()} is what it was.`);
    await changed();
  };
  at("spend").addEventListener("click", () => void limit("$0.002"));
  at("renew").addEventListener("click", () => void limit(""));
  at("mode").addEventListener("change", () => {
    const mode = at("mode").value;
    void act(() => send("PUT", `operator/mode?mode=${mode}`, KEY), {
      enforce: "Floors, ceilings and budgets hold.",
      observe: "It only watches: no model is changed, nothing is refused. Of several processes this is one.",
      off: "Tierline does nothing, in this process.",
    }[mode]);
  });
  get("operator/mode", KEY).then((told) => { at("mode").value = told.mode; }, () => {});
}
