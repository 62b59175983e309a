// One colour for each tier, the same all over the page. Okabe and Ito's, which people tell apart whatever they see of
// colours; and never without a name beside it.

import { h } from "./vendor/preact.js";
import { Name } from "./words.js";

const RUNGS = ["sky", "blue", "green", "purple", "yellow", "vermillion"];
const TOP = "orange";
const OTHER = "grey";

/** Names the colours of tiers: cheapest first, the top always alike, what is on no rung grey. */
export function palette(ladder) {
  const names = new Map(ladder.map((tier, place) => [tier, RUNGS[place % RUNGS.length]]));
  if (ladder.length) names.set(ladder.at(-1), TOP);
  return (tier) => `var(--${names.get(tier) ?? OTHER})`;
}

/** The tiers that something is known of, in the ladder's order, then the others. */
export function tiersOf(overview) {
  const seen = new Set(overview.by_tier.map((row) => row.name));
  for (const hour of overview.hours) for (const tier of Object.keys(hour.tiers)) seen.add(tier);
  const others = [...seen].filter((tier) => !overview.tiers.includes(tier)).sort();
  return [...overview.tiers, ...others];
}

/** A tier's name beside its colour. */
export function Tier({ of, ladder }) {
  return h(
    "span",
    { class: "tier", style: { "--c": palette(ladder)(of) } },
    h("i", { "aria-hidden": "true" }),
    h(Name, { of }),
  );
}
