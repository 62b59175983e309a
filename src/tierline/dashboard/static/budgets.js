// Budgets: the fullest as they move; all accounts by search, order and page.

import { Component, h } from "./vendor/preact.js";
import { get } from "./live.js";
import { Money, nano, share } from "./money.js";
import { Aside, Name, When, hidden, number, percent, plural } from "./words.js";

const PAGE = 10;
const TYPING = 250;
const FRESH = 5_000;
const NEARLY = 0.9;
const ORDERS = [
  ["share", "fullest first"],
  ["spent", "most spent first"],
  ["name", "by name"],
];

export class Budgets extends Component {
  #timer = 0;
  #asked = 0;
  #turn = 0;

  constructor() {
    super();
    this.state = { search: "", sort: "share", offset: 0, page: null, error: "" };
  }

  /** The overview has the first page of the usual order; everything else is asked for. */
  get usual() {
    const { search, sort, offset } = this.state;
    return search === "" && sort === "share" && offset === 0;
  }

  componentWillReceiveProps(next) {
    if (!this.usual && next.overview !== this.props.overview && Date.now() - this.#asked > FRESH) this.#ask();
  }

  componentWillUnmount() {
    clearTimeout(this.#timer);
  }

  #change(what, wait = 0) {
    clearTimeout(this.#timer);
    this.setState({ offset: 0, ...what }, () => {
      this.#turn += 1;
      if (this.usual) this.setState({ page: null, error: "" });
      else this.#timer = setTimeout(() => this.#ask(), wait);
    });
  }

  async #ask() {
    const { search, sort, offset } = this.state;
    const turn = (this.#turn += 1);
    this.#asked = Date.now();
    try {
      const page = await get(`api/accounts?${new URLSearchParams({ search, sort, offset, most: PAGE })}`);
      if (turn === this.#turn) this.setState({ page, error: "" });
    } catch (error) {
      if (turn === this.#turn) this.setState({ error: error.message });
    }
  }

  render({ overview, act }, { search, sort, offset, page, error }) {
    const rows = page?.rows ?? overview.budgets.slice(0, PAGE);
    const total = page?.total ?? overview.accounts_total;
    if (!overview.accounts_total)
      return h(
        "section",
        { "aria-labelledby": "budgets" },
        h("h2", { id: "budgets" }, "Budgets"),
        h("p", { class: "none" }, overview.trouble ? "They cannot be shown now." : "No budget has been used yet."),
      );
    return h(
      "section",
      { "aria-labelledby": "budgets" },
      h("h2", { id: "budgets" }, "Budgets"),
      h(
        "div",
        { class: "tools", role: "search" },
        h(
          "label",
          null,
          "Search ",
          h("input", {
            type: "search",
            id: "search",
            value: search,
            maxLength: 200,
            placeholder: "an account",
            autocomplete: "off",
            spellcheck: false,
            onInput: (event) => this.#change({ search: event.target.value }, TYPING),
          }),
        ),
        h(
          "label",
          null,
          "Order ",
          h(
            "select",
            { value: sort, onChange: (event) => this.#change({ sort: event.target.value }) },
            ORDERS.map(([value, text]) => h("option", { key: value, value }, text)),
          ),
        ),
        h("p", { class: "found", role: "status" }, error || `${plural(total, "account")}${search ? " found" : ""}`),
      ),
      rows.length > 0 && h(Table, { rows, now: overview.now, act: overview.actions.includes("limit") ? act : null }),
      (total > PAGE || offset > 0) &&
        h(
          "nav",
          { class: "pager", "aria-label": "Pages of accounts" },
          h(
            "button",
            {
              type: "button",
              disabled: offset === 0,
              onClick: () => this.#change({ offset: Math.max(0, offset - PAGE) }),
            },
            "Previous",
          ),
          h(
            "span",
            null,
            `${number(Math.min(offset + 1, total))} to ${number(Math.min(offset + PAGE, total))} of ${number(total)}`,
          ),
          h(
            "button",
            {
              type: "button",
              disabled: offset + PAGE >= total,
              onClick: () => this.#change({ offset: offset + PAGE }),
            },
            "Next",
          ),
        ),
    );
  }
}

function Table({ rows, now, act }) {
  const heads = ["Budget", "Used", "Burns", "At the end", "Until"];
  return h(
    "table",
    { class: "cards budgets", role: "table" },
    h("caption", { class: "hidden" }, "Budgets and their accounts"),
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        heads.map((head) => h("th", { key: head, scope: "col", role: "columnheader" }, head)),
        act && h("th", { role: "columnheader", scope: "col" }, hidden("Change")),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) => h(Row, { key: JSON.stringify([row.budget, row.account]), row, now, act })),
    ),
  );
}

function Row({ row, now, act }) {
  const limit = nano(row.limit);
  const spent = nano(row.spent);
  const held = nano(row.held);
  const forecast = row.forecast === null ? null : nano(row.forecast);
  return h(
    "tr",
    { role: "row" },
    h(
      "th",
      { scope: "row", role: "rowheader" },
      h(Name, { of: row.account, none: "everybody" }),
      h(
        "span",
        { class: "under line" },
        h(Name, { of: row.budget }),
        !row.hard && h("b", { class: "badge" }, "soft"),
        row.overridden && h("b", { class: "badge" }, "changed"),
      ),
    ),
    h(
      "td",
      { role: "cell", "data-label": "Used", class: "used" },
      h(Gauge, { limit, spent, held, forecast }),
      h(
        "span",
        { class: "under line" },
        h("span", null, h(Money, { of: spent }), " of ", h(Money, { of: limit })),
        h(Standing, { row, limit, spent, held, forecast }),
      ),
    ),
    h(
      "td",
      { role: "cell", "data-label": "Burns" },
      row.burn === null ? "–" : [h(Money, { key: "m", of: row.burn }), h(Aside, { key: "h" }, "an hour")],
    ),
    h(
      "td",
      { role: "cell", "data-label": "At the end" },
      forecast === null
        ? "–"
        : [h(Money, { key: "m", of: forecast }), h(Aside, { key: "s" }, percent(share(forecast, limit)))],
    ),
    h("td", { role: "cell", "data-label": "Until" }, h(Until, { row, now })),
    act &&
      h(
        "td",
        { role: "cell" },
        h(
          "button",
          { type: "button", class: "quiet", onClick: () => act({ kind: "limit", row }) },
          "Change",
          hidden(` the limit of ${row.account || "everybody"}, ${row.budget}`),
        ),
      ),
  );
}

/** Spent, held, and where the forecast ends, as parts of the limit. */
function Gauge({ limit, spent, held, forecast }) {
  const most = [limit, spent + held].reduce((a, b) => (a > b ? a : b));
  const part = (amount) => `${Math.min(1, share(amount, most)) * 100}%`;
  return h(
    "div",
    { class: spent + held > limit ? "gauge over" : "gauge", "aria-hidden": "true" },
    h("span", { class: "spent", style: { width: part(spent) } }),
    h("span", { class: "held", style: { width: part(held) } }),
    forecast !== null && forecast <= most && forecast > spent && h("i", { style: { left: part(forecast) } }),
  );
}

function Standing({ row, limit, spent, held, forecast }) {
  const over = spent + held > limit;
  const soon = row.runs_out_at !== null && (row.renews_at === null || row.runs_out_at < row.renews_at);
  const word = over
    ? "over the limit"
    : row.share >= 1
      ? "used up"
      : soon
        ? "runs out"
        : row.share >= NEARLY
          ? "nearly full"
          : "";
  return [
    h(Aside, { key: "share" }, percent(row.share)),
    held > 0n && h(Aside, { key: "held" }, "held ", h(Money, { of: held })),
    nano(row.estimated) > 0n && h(Aside, { key: "estimated" }, "estimated ", h(Money, { of: row.estimated })),
    word &&
      h(
        "b",
        { key: "word", class: over || row.share >= 1 ? "badge bad" : "badge warn" },
        h("span", { "aria-hidden": "true" }, "▲ "),
        word,
      ),
  ];
}

function Until({ row, now }) {
  const rolls = row.window.startsWith("rolling");
  const soon = row.runs_out_at !== null && (row.renews_at === null || row.runs_out_at < row.renews_at);
  return [
    soon && h("span", { key: "out" }, "empty ", h(When, { at: row.runs_out_at, now })),
    h(
      "span",
      { key: "renews", class: soon ? "under" : "" },
      row.renews_at === null
        ? rolls
          ? "rolls on"
          : "does not renew"
        : [rolls ? "some is free " : "renews ", h(When, { key: "t", at: row.renews_at, now })],
    ),
  ];
}
