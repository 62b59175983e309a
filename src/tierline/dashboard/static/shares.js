// Who and what the money went to: the dearest tiers, routes, accounts and runs.

import { Component, h } from "./vendor/preact.js";
import { Money, nano, placesOf, share } from "./money.js";
import { Tier, palette } from "./tiers.js";
import { Aside, Name, number, percent } from "./words.js";

const FEW = 8;

export function Shares({ overview }) {
  const columns = [
    [
      ["tier", "By tier", overview.by_tier],
      ["run", "By run", overview.by_job],
    ],
    [["route", "By route", overview.by_route]],
    [["account", "By account", overview.by_account]],
  ];
  if (!columns.flat().some(([, , rows]) => rows.length > 0)) return null;
  return h(
    "section",
    { "aria-labelledby": "who" },
    h("h2", { id: "who" }, "What it went to"),
    h(
      "div",
      { class: "three" },
      columns.map((tables, place) =>
        h(
          "div",
          { key: place },
          tables.map(
            ([what, title, rows]) =>
              rows.length > 0 && h(Share, { key: what, what, title, rows, ladder: overview.tiers }),
          ),
        ),
      ),
    ),
  );
}

class Share extends Component {
  render({ what, title, rows, ladder }, { whole }) {
    const shown = whole ? rows : rows.slice(0, FEW);
    const most = rows.map((row) => nano(row.cost)).reduce((a, b) => (a > b ? a : b), 0n);
    const calls = rows.reduce((total, row) => total + row.calls, 0);
    const places = { cost: placesOf(rows.map((row) => row.cost)) };
    const colour = palette(ladder);
    return h(
      "div",
      { class: "share" },
      h(
        "table",
        { id: `by-${what}` },
        h("caption", null, title),
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col" }, what),
            h("th", { scope: "col", class: "n" }, "calls"),
            h("th", { scope: "col", class: "n" }, "cost"),
            h("th", { scope: "col", class: "n" }, "saved"),
          ),
        ),
        h(
          "tbody",
          null,
          shown.map((row) => {
            const cost = nano(row.cost);
            const top = nano(row.top);
            return h(
              "tr",
              { key: row.name },
              h(
                "th",
                { scope: "row" },
                what === "tier" ? h(Tier, { of: row.name, ladder }) : h(Name, { of: row.name, none: `(no ${what})` }),
                h(
                  "span",
                  { class: "bar", "aria-hidden": "true" },
                  h("span", {
                    style: {
                      "--c": what === "tier" ? colour(row.name) : "var(--accent)",
                      width: `${share(cost, most) * 100}%`,
                    },
                  }),
                ),
              ),
              h(
                "td",
                { class: "n" },
                number(row.calls),
                what === "tier" && calls > 0 && h(Aside, null, percent(row.calls / calls)),
              ),
              h("td", { class: "n" }, h(Money, { of: cost, places: places.cost })),
              h("td", { class: "n" }, top > 0n ? percent(share(top - cost, top)) : "–"),
            );
          }),
        ),
      ),
      rows.length > FEW &&
        h(
          "button",
          {
            type: "button",
            class: "quiet",
            "aria-expanded": String(Boolean(whole)),
            onClick: () => this.setState({ whole: !whole }),
          },
          whole ? "Fewer" : `All ${rows.length}`,
        ),
    );
  }
}
