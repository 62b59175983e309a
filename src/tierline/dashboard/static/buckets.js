// Hours, added up into as many bars as can be told apart.

import { nano } from "./money.js";

const STEPS = [1, 2, 3, 4, 6, 12, 24];
const DAY = 24;

/** How many hours a bar has, where `most` bars fit and there are `count` sums of `each` hours. */
export function stepFor(count, each, most) {
  return each === DAY ? DAY : (STEPS.find((step) => count / step <= most) ?? DAY);
}

/** When the bar begins that a moment belongs to, by the viewer's clock: days begin at midnight. */
function startOf(at, step, each) {
  if (step === each) return at;
  const start = new Date(at * 1000);
  start.setMinutes(0, 0, 0);
  start.setHours(start.getHours() - (start.getHours() % step));
  return start.getTime() / 1000;
}

/** Bars of `step` hours, of sums of `each` hours, in order: `at`, and for each of `tiers` calls and cost; what all of them would have cost on the top tier. */
export function bucketsOf(hours, tiers, step, each) {
  const bars = new Map();
  for (const hour of hours) {
    const at = startOf(hour.at, step, each);
    if (!bars.has(at)) {
      bars.set(at, { at, top: 0n, cost: tiers.map(() => 0n), calls: tiers.map(() => 0) });
    }
    const bar = bars.get(at);
    for (const [place, tier] of tiers.entries()) {
      const counts = Object.hasOwn(hour.tiers, tier) ? hour.tiers[tier] : null;
      if (counts === null) continue;
      bar.top += nano(counts.top);
      bar.cost[place] += nano(counts.cost);
      bar.calls[place] += counts.calls;
    }
  }
  return [...bars.values()];
}

/** Rows of bars as heights: the sum of each tier and those under it, the last tier first. */
export function stacked(bars, read) {
  const rows = [];
  const heights = bars.map(() => 0);
  const tiers = bars.length ? read(bars[0]).length : 0;
  for (let place = 0; place < tiers; place += 1) {
    for (const [index, bar] of bars.entries()) heights[index] += read(bar)[place];
    rows.unshift([...heights]);
  }
  return rows;
}
