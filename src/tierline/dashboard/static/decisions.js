// The last decisions, newest first. Nobody's row moves under a pointer or the focus: new ones then wait behind a button.

import { Component, h } from "./vendor/preact.js";
import { get } from "./live.js";
import { Money, nano, placesOf } from "./money.js";
import { Tier } from "./tiers.js";
import { Aside, Name, When, cut, hidden, plural } from "./words.js";

const MOST = 200;
const OLDER = 50;
const FEW = 15;

/** Both lists as one, newest first; of two records with one id the first. */
export function merged(first, second) {
  const rows = new Map();
  for (const row of [...first, ...second]) if (!rows.has(row.id)) rows.set(row.id, row);
  return [...rows.values()].sort((a, b) => b.at - a.at || (a.id < b.id ? 1 : -1)).slice(0, MOST);
}

export class Decisions extends Component {
  constructor() {
    super();
    this.state = { frozen: null, older: [], most: FEW, error: "", end: false };
    this.busy = { pointer: false, focus: false };
  }

  #hold(what) {
    Object.assign(this.busy, what);
    const held = this.busy.pointer || this.busy.focus;
    if (held && this.state.frozen === null) this.setState({ frozen: this.props.rows });
    if (!held && this.state.frozen !== null) this.setState({ frozen: null });
  }

  async #more() {
    const rows = merged(this.props.rows, this.state.older);
    this.setState({ most: this.state.most + OLDER });
    if (rows.length >= this.state.most) return;
    const { at, id } = rows.at(-1);
    try {
      const found = await get(`api/decisions?${new URLSearchParams({ most: OLDER, before: at, id })}`);
      this.setState({ older: merged(this.state.older, found.rows), end: found.rows.length === 0, error: "" });
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  render({ rows, now, ladder, open }, { frozen, older, most, error, end }) {
    const live = frozen ?? rows;
    const all = merged(live, older);
    const shown = all.slice(0, most);
    const seen = new Set(live.map((row) => row.id));
    const waiting = frozen === null ? 0 : rows.filter((row) => !seen.has(row.id)).length;
    const places = Math.min(6, placesOf(shown.map((row) => row.cost)));
    return h(
      "section",
      { "aria-labelledby": "decisions" },
      h("h2", { id: "decisions" }, "Last decisions"),
      shown.length === 0 && h("p", { class: "none" }, "No call has been decided since the page was mounted."),
      waiting > 0 &&
        h(
          "p",
          { class: "waiting" },
          h(
            "button",
            { type: "button", onClick: () => this.setState({ frozen: this.props.rows }) },
            `Show ${plural(waiting, "newer decision")}`,
          ),
        ),
      shown.length > 0 &&
        h(
          "div",
          {
            onPointerEnter: (event) => event.pointerType === "mouse" && this.#hold({ pointer: true }),
            onPointerLeave: () => this.#hold({ pointer: false }),
            onFocusin: () => this.#hold({ focus: true }),
            onFocusout: () => this.#hold({ focus: false }),
          },
          h(
            "table",
            { class: "cards decisions", role: "table" },
            h("caption", { class: "hidden" }, "Last decisions, newest first; each opens"),
            h(
              "thead",
              { role: "rowgroup" },
              h(
                "tr",
                { role: "row" },
                ["Time", "Tier", "Route", "Account", "Why", "Cost", "Saved"].map((head) =>
                  h(
                    "th",
                    {
                      key: head,
                      scope: "col",
                      role: "columnheader",
                      class: head === "Cost" || head === "Saved" ? "n" : "",
                    },
                    head,
                  ),
                ),
              ),
            ),
            h(
              "tbody",
              { role: "rowgroup" },
              shown.map((row) => h(Row, { key: row.id, row, now, ladder, open, places })),
            ),
          ),
        ),
      (all.length > most || (all.length >= OLDER && all.length < MOST && !end)) &&
        h("p", null, h("button", { type: "button", class: "quiet", onClick: () => this.#more() }, "Older")),
      error && h("p", { role: "alert" }, error),
    );
  }
}

/** Why in a few words: what moved the call last, or who chose. */
function whyOf(row) {
  const reasons = Array.isArray(row.reasons) ? row.reasons : [];
  return reasons.length ? reasons.at(-1) : row.label ? `${row.label}, by ${row.source}` : row.source;
}

function Row({ row, now, ladder, open, places }) {
  return h(
    "tr",
    { role: "row", onClick: () => open(row) },
    h(
      "th",
      { scope: "row", role: "rowheader" },
      h(
        "button",
        {
          type: "button",
          class: "link",
          "data-id": row.id,
          onClick: (event) => {
            event.stopPropagation();
            open(row);
          },
        },
        h(When, { at: row.at, now, seconds: true }),
        hidden(", open this decision"),
      ),
    ),
    h(
      "td",
      { role: "cell", "data-label": "Tier" },
      h("span", { class: "line" }, h(Tier, { of: row.tier, ladder }), h(Moved, { row })),
    ),
    h("td", { role: "cell", "data-label": "Route" }, h(Name, { of: row.route, none: "(no route)" })),
    h("td", { role: "cell", "data-label": "Account" }, h(Name, { of: row.tenant, none: "(no tenant)" })),
    h("td", { role: "cell", "data-label": "Why", class: "why" }, h("bdi", { class: "name" }, cut(whyOf(row), 160))),
    h("td", { role: "cell", "data-label": "Cost", class: "n" }, h(Money, { of: row.cost, places })),
    h(
      "td",
      { role: "cell", "data-label": "Saved", class: "n" },
      nano(row.saved) === 0n
        ? "–"
        : [h("span", { key: "word", class: "word" }, "saved "), h(Money, { key: "m", of: row.saved, places })],
    ),
  );
}

function Moved({ row }) {
  return [
    row.outcome !== "ok" &&
      h("b", { key: "outcome", class: row.outcome === "refused" ? "badge warn" : "badge bad" }, row.outcome),
    row.requested_tier &&
      row.requested_tier !== row.tier &&
      h(Aside, { key: "asked" }, "wanted ", h("bdi", null, row.requested_tier)),
    row.attempts?.length > 1 && h(Aside, { key: "attempts" }, plural(row.attempts.length, "attempt")),
  ];
}
