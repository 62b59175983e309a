// Who is at work, and which models are not called just now.

import { h } from "./vendor/preact.js";
import { Name, When, duration, hidden, plural } from "./words.js";

const GONE = 30;
const STATES = { open: "not called", "half-open": "being tried", half_open: "being tried" };

export function Operations({ overview, act }) {
  const may = (action) => overview.actions.includes(action);
  return h(
    "section",
    { "aria-labelledby": "operations" },
    h("h2", { id: "operations" }, "At work"),
    h(
      "div",
      { class: "pair" },
      h("div", null, h("h3", null, "Breakers"), h(Breakers, { overview, act: may("breaker") ? act : null })),
      h("div", null, h("h3", null, "Workers"), h(Workers, { overview })),
    ),
    may("verdicts") &&
      h(
        "p",
        { class: "tools" },
        h("button", { type: "button", onClick: () => act({ kind: "verdicts" }) }, "Clear the verdict cache…"),
      ),
  );
}

function Breakers({ overview, act }) {
  const rows = overview.breakers;
  if (!rows.length) return h("p", { class: "none" }, "All models are called.");
  return h(
    "table",
    { id: "breakers" },
    h("caption", { class: "hidden" }, "Models that are not called just now"),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Model", "State", "Worker"].map((head) => h("th", { key: head, scope: "col" }, head)),
        act && h("th", { scope: "col" }, hidden("Close")),
      ),
    ),
    h(
      "tbody",
      null,
      rows.map((row) =>
        h(
          "tr",
          { key: JSON.stringify([row.worker, row.model, row.endpoint]) },
          h(
            "th",
            { scope: "row" },
            h(Name, { of: row.model }),
            row.endpoint && h("span", { class: "under" }, h(Name, { of: row.endpoint })),
          ),
          h(
            "td",
            null,
            h("b", { class: "badge warn" }, h("span", { "aria-hidden": "true" }, "▲ "), STATES[row.state] ?? row.state),
            row.until &&
              h("span", { class: "under" }, "until ", h(When, { at: row.until, now: overview.now, seconds: true })),
          ),
          h("td", null, h(Name, { of: row.worker })),
          act &&
            h(
              "td",
              null,
              h(
                "button",
                { type: "button", class: "quiet", onClick: () => act({ kind: "breaker", row }) },
                "Close",
                hidden(` the breaker of ${row.model}`),
              ),
            ),
        ),
      ),
    ),
  );
}

function Workers({ overview }) {
  if (!overview.workers.length) return h("p", { class: "none" }, "No worker has been heard of.");
  return h(
    "table",
    { id: "workers" },
    h("caption", { class: "hidden" }, plural(overview.workers.length, "worker")),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        ["Worker", "Up for", "Heard of"].map((head) => h("th", { key: head, scope: "col" }, head)),
      ),
    ),
    h(
      "tbody",
      null,
      overview.workers.map((row) => {
        const silent = overview.now - row.seen;
        return h(
          "tr",
          { key: row.id },
          h("th", { scope: "row" }, h(Name, { of: row.id })),
          h("td", null, duration(overview.now - row.started)),
          h("td", null, silent > GONE ? h("b", { class: "badge warn" }, `${duration(silent)} ago`) : "just now"),
        );
      }),
    ),
  );
}
