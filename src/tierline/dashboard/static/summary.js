// At a glance: what was spent, and what it would have been with everything on the top tier.

import { h } from "./vendor/preact.js";
import { Exact, Money, exact, nano, share } from "./money.js";
import { palette } from "./tiers.js";
import { Name, change, hidden, number, percent, plural } from "./words.js";

const SPANS = new Map([
  [24, "24 hours"],
  [168, "7 days"],
  [720, "30 days"],
]);

export const spanOf = (hours) => SPANS.get(hours) ?? plural(hours, "hour");

export function Summary({ overview, hours }) {
  const { total, before, tiers } = overview;
  const spent = nano(total.cost);
  const top = nano(total.top);
  const saved = top - spent;
  const last = tiers.at(-1) ?? "the top tier";
  return h(
    "section",
    { "aria-labelledby": "money" },
    h("h2", { id: "money" }, "Where the money goes"),
    h(
      "div",
      { class: "headline" },
      h(
        "p",
        null,
        h("span", { class: "label" }, `Spent in ${spanOf(hours)}`),
        h(Exact, { id: "spent", class: "big", of: spent }),
        h(Against, { now: Number(spent), before: Number(nano(before.cost)) }),
      ),
      h(
        "p",
        null,
        h("span", { class: "label" }, "With every call on ", h(Name, { of: last })),
        h(Exact, { id: "top", class: "big", of: top }),
      ),
      h(
        "p",
        null,
        h("span", { class: "label" }, saved < 0n ? "More than that" : "Saved"),
        h(Exact, { id: "saved", class: "big", of: saved < 0n ? -saved : saved }),
        top > 0n && h("span", { class: "change" }, percent(Math.abs(share(saved, top)))),
      ),
    ),
    h(Comparison, { overview, spent, top, saved }),
    h(Tiles, { total, before, spent }),
  );
}

/** The cost of everything on the top tier as a bar, and in it what each tier cost. */
function Comparison({ overview, spent, top, saved }) {
  const whole = top > spent ? top : spent;
  const colour = palette(overview.tiers);
  const ladder = [...overview.tiers, ""];
  const place = (row) => (ladder.includes(row.name) ? ladder.indexOf(row.name) : ladder.length);
  const rows = [...overview.by_tier].filter((row) => nano(row.cost) > 0n).sort((a, b) => place(a) - place(b));
  if (whole === 0n) return h("p", { class: "none comparison" }, "No money was spent in this time.");
  const text = rows.map((row) => `${row.name}: ${exact(nano(row.cost))}`).join(", ");
  return h(
    "div",
    { class: "comparison" },
    h(
      "div",
      {
        class: "strip",
        role: "img",
        "aria-label": `Of ${exact(whole)}: ${text}${saved > 0n ? `, saved: ${exact(saved)}` : ""}`,
      },
      rows.map((row) =>
        h("span", {
          key: row.name,
          style: { "--c": colour(row.name), width: `${share(nano(row.cost), whole) * 100}%` },
        }),
      ),
      saved > 0n && h("span", { key: "(saved)", class: "saved" }),
    ),
    h(
      "ul",
      { class: "legend" },
      rows.map((row) =>
        h(
          "li",
          { key: row.name, style: { "--c": colour(row.name) } },
          h("i", { "aria-hidden": "true" }),
          h(Name, { of: row.name, none: "(no tier)" }),
          " ",
          h(Money, { of: row.cost }),
        ),
      ),
      saved > 0n &&
        h(
          "li",
          { key: "(saved)", class: "saved" },
          h("i", { "aria-hidden": "true" }),
          "not spent ",
          h(Money, { of: saved }),
        ),
    ),
  );
}

function Against({ now, before, points = false }) {
  const text = points ? pointsOf(now, before) : change(now, before);
  return text && h("span", { class: "change" }, text, hidden(" against the time before"));
}

function pointsOf(now, before) {
  if (!Number.isFinite(now) || !Number.isFinite(before)) return "";
  const points = Math.round((now - before) * 100);
  return points === 0 ? "" : `${points < 0 ? "−" : "+"}${plural(Math.abs(points), "point")}`;
}

function Tiles({ total, before, spent }) {
  const own = nano(total.own);
  const estimated = nano(total.estimated);
  return h(
    "dl",
    { class: "tiles" },
    h(Tile, {
      name: "Calls",
      id: "calls",
      hint: total.batched > 0 && `and ${number(total.batched)} in batches`,
      now: total.calls,
      before: before.calls,
    }),
    h(Tile, {
      name: "Cache hits",
      id: "hits",
      text: total.lookups ? percent(total.hits / total.lookups) : "–",
      hint: `${number(total.hits)} of ${number(total.lookups)} verdicts`,
      change: h(Against, { points: true, now: total.hits / total.lookups, before: before.hits / before.lookups }),
    }),
    h(Tile, {
      name: "Downgrades",
      id: "downgrades",
      hint: "cheaper, for a budget",
      now: total.downgrades,
      before: before.downgrades,
    }),
    h(Tile, {
      name: "Escalations",
      id: "escalations",
      hint: "after a poor answer",
      now: total.escalations,
      before: before.escalations,
    }),
    h(Tile, {
      name: "Fallbacks",
      id: "fallbacks",
      hint: "after a failure",
      now: total.fallbacks,
      before: before.fallbacks,
    }),
    h(Tile, { name: "Refusals", id: "refusals", hint: "no budget left", now: total.refusals, before: before.refusals }),
    h(Tile, { name: "Failures", id: "failures", hint: "no answer", now: total.failures, before: before.failures }),
    h(Tile, {
      name: "Tierline's own",
      id: "own",
      text: h(Money, { of: own }),
      hint: `${percent(share(own, spent))} of all: verdicts, grades`,
    }),
    h(Tile, { name: "Estimated", id: "estimated", text: h(Money, { of: estimated }), hint: "not measured" }),
  );
}

function Tile({ name, id, now, before, text, hint, change: shown }) {
  return h(
    "div",
    null,
    h("dt", null, name),
    h("dd", null, h("span", { id }, text ?? number(now)), shown ?? h(Against, { now, before })),
    hint && h("dd", { class: "hint" }, hint),
  );
}
