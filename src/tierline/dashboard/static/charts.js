// Cost and calls over time, stacked by tier. Each chart is also a table, for those who do not see it.

import { Component, createRef, h } from "./vendor/preact.js";
import { bucketsOf, stacked, stepFor } from "./buckets.js";
import { Money, dollars, placesOf, short, sum } from "./money.js";
import { palette, tiersOf } from "./tiers.js";
import { Name, dayOf, number, timeOf, zone } from "./words.js";

const { uPlot } = globalThis;
const NARROW = 600;
const HEIGHT = 220;
const BAR_PIXELS = 9;
const MOST_BARS = 96;
const HOUR = 3_600;

export function Charts({ overview }) {
  const room = Math.min(
    MOST_BARS,
    Math.floor(Math.min(innerWidth, 1_280) / BAR_PIXELS / (innerWidth < NARROW ? 1 : 2)),
  );
  const each = (overview.step ?? HOUR) / HOUR;
  const utc = each > 1;
  const step = stepFor(overview.hours.length, each, Math.max(room, 24));
  const tiers = tiersOf(overview);
  const bars = bucketsOf(overview.hours, tiers, step, each);
  const every = step === 1 ? "by hour" : step === 24 ? "by day" : `by ${step} hours`;
  const shared = { tiers, bars, step, utc, ladder: overview.tiers };
  const last = overview.tiers.at(-1) ?? "the top tier";
  const places = placesOf(bars.map((bar) => bar.top));
  return h(
    "section",
    { "aria-labelledby": "time" },
    h("h2", { id: "time" }, "Over time"),
    h(
      "div",
      { class: "pair" },
      h(Figure, {
        ...shared,
        id: "cost",
        title: `Cost ${every}`,
        lineName: `all on ${last}`,
        read: (bar) => bar.cost.map(dollars),
        line: (bar) => dollars(bar.top),
        shown: (bar, place) => short(bar.cost[place], places),
        lineShown: (bar) => short(bar.top, places),
        cell: (bar, place) => h(Money, { of: bar.cost[place], places }),
        lineCell: (bar) => h(Money, { of: bar.top, places }),
        all: (place) => h(Money, { of: sum(bars.map((bar) => bar.cost[place])) }),
        lineAll: () => h(Money, { of: sum(bars.map((bar) => bar.top)) }),
        axis: axisDollars,
      }),
      h(Figure, {
        ...shared,
        id: "traffic",
        title: `Calls ${every}`,
        read: (bar) => bar.calls,
        shown: (bar, place) => number(bar.calls[place]),
        cell: (bar, place) => number(bar.calls[place]),
        all: (place) => number(bars.reduce((total, bar) => total + bar.calls[place], 0)),
        axis: (_, splits) => splits.map((each) => (Number.isInteger(each) ? number(each) : "")),
      }),
    ),
  );
}

function axisDollars(_, splits) {
  const gap = splits.length > 1 ? splits[1] - splits[0] : 1;
  const places = gap >= 1 ? 0 : Math.min(9, Math.max(2, Math.ceil(-Math.log10(gap) - 1e-9)));
  return splits.map((each) => `$${each.toFixed(places)}`);
}

/** A chart with its title, a legend that tells the numbers under the pointer, and its table. */
class Figure extends Component {
  constructor() {
    super();
    this.state = { at: null };
    this.point = (at) => at !== this.state.at && this.setState({ at });
  }

  render(
    {
      id,
      title,
      tiers,
      bars,
      step,
      utc,
      ladder,
      shown,
      cell,
      all,
      line,
      lineName,
      lineShown,
      lineCell,
      lineAll,
      read,
      axis,
    },
    { at },
  ) {
    const colour = palette(ladder);
    const bar = at === null ? null : bars[at];
    const used = tiers
      .map((tier, place) => [tier, place])
      .filter(([tier, place]) => ladder.includes(tier) || bars.some((each) => each.calls[place]));
    return h(
      "figure",
      null,
      h(
        "figcaption",
        null,
        h("h3", null, title),
        h("span", { class: "moment", "aria-hidden": "true" }, bar ? spell(bar.at, step, utc) : ""),
      ),
      h(
        "ul",
        { class: "legend" },
        used.map(([tier, place]) =>
          h(
            "li",
            { key: tier, style: { "--c": colour(tier) } },
            h("i", { "aria-hidden": "true" }),
            h(Name, { of: tier, none: "(no tier)" }),
            " ",
            bar ? shown(bar, place) : all(place),
          ),
        ),
        line &&
          h(
            "li",
            { key: "(line)", class: "line" },
            h("i", { "aria-hidden": "true" }),
            h("bdi", { class: "name" }, lineName),
            " ",
            bar ? lineShown(bar) : lineAll(),
          ),
      ),
      h(Plot, {
        bars,
        step,
        utc,
        read,
        line,
        axis,
        colours: tiers.map(colour),
        point: this.point,
        label: `${title}, as a chart; the table below has its numbers`,
      }),
      h(
        "details",
        { id: `${id}-table` },
        h("summary", null, "As a table"),
        h(
          "div",
          { class: "scroll", tabIndex: 0, role: "region", "aria-label": `${title}, table` },
          h(
            "table",
            null,
            h("caption", { class: "hidden" }, `${title}, times of ${utc ? "UTC" : zone()}`),
            h(
              "thead",
              null,
              h(
                "tr",
                null,
                h("th", { scope: "col" }, "From"),
                used.map(([tier]) =>
                  h("th", { key: tier, scope: "col", class: "n" }, h(Name, { of: tier, none: "(no tier)" })),
                ),
                line && h("th", { scope: "col", class: "n" }, lineName),
              ),
            ),
            h(
              "tbody",
              null,
              bars.toReversed().map((row) =>
                h(
                  "tr",
                  { key: row.at },
                  h("th", { scope: "row" }, spell(row.at, step, utc)),
                  used.map(([tier, place]) => h("td", { key: tier, class: "n" }, cell(row, place))),
                  line && h("td", { class: "n" }, lineCell(row)),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
}

const spell = (at, step, utc) => (step >= 24 ? dayOf(at, utc) : `${dayOf(at)}, ${timeOf(at)}`);

/** The chart itself. It is drawn anew only where its data, its width or the colours of the page changed. */
class Plot extends Component {
  #box = createRef();
  #plot = null;
  #drawn = "";
  #watcher = new ResizeObserver(([entry]) => this.#fit(entry.contentRect.width));
  #scheme = matchMedia("(prefers-color-scheme: dark)");
  #redraw = () => this.#plot?.redraw(false, true);

  shouldComponentUpdate(next) {
    this.#show(next);
    return false;
  }

  componentDidMount() {
    this.#watcher.observe(this.#box.current);
    this.#scheme.addEventListener("change", this.#redraw);
  }

  componentWillUnmount() {
    this.#watcher.disconnect();
    this.#scheme.removeEventListener("change", this.#redraw);
    this.#plot?.destroy();
  }

  #fit(width) {
    if (width === 0) return;
    if (this.#plot) this.#plot.setSize({ width, height: HEIGHT });
    else this.#show(this.props, width);
  }

  #show(props, width = this.#plot?.width) {
    if (!width) return;
    const data = dataOf(props);
    const shape = JSON.stringify([props.colours, props.step, props.utc]);
    if (this.#plot && shape === this.#drawn) {
      if (JSON.stringify(data) !== JSON.stringify(this.#plot.data)) this.#plot.setData(data);
      return;
    }
    this.#plot?.destroy();
    this.#plot = new uPlot(optionsOf(props, width), data, this.#box.current);
    this.#drawn = shape;
  }

  render({ label }) {
    return h("div", { ref: this.#box, class: "plot", role: "img", "aria-label": label });
  }
}

/** What is drawn: times, the tiers' heights from the whole stack down, the line. One moment more ends the last bar. */
function dataOf({ bars, colours, step, read, line }) {
  if (!bars.length) return [[], ...colours.map(() => []), ...(line ? [[]] : [])];
  const rows = stacked(bars, read).map((row) => [...row, null]);
  const times = bars.map((bar) => bar.at);
  const data = [[...times, times.at(-1) + step * HOUR], ...rows];
  if (line) data.push([...bars.map(line), line(bars.at(-1))]);
  return data;
}

function optionsOf({ colours, line, axis, point, step, utc }, width) {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const colour = (name) => () => value(name.replace(/^var\((.*)\)$/, "$1"));
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const bars = uPlot.paths.bars({ size: [0.86, 64], align: 1 });
  const lines = {
    font,
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    ...(utc && { tzDate: (at) => uPlot.tzDate(new Date(at * 1_000), "Etc/UTC") }),
    padding: [10, 20, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: {
      x: { time: true, range: (_, from, to) => [from, Math.max(to, from + HOUR)] },
      y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] },
    },
    axes: [
      {
        ...lines,
        grid: { show: false },
        size: 30,
        space: 64,
        values: (_, splits) =>
          splits.map((at) => (step >= 24 || isMidnight(at) ? dayOf(at, utc).replace(/^\w+, /, "") : timeOf(at))),
      },
      { ...lines, size: 58, space: 30, values: axis },
    ],
    series: [
      {},
      ...[...colours]
        .reverse()
        .map((each) => ({ paths: bars, fill: colour(each), stroke: colour(each), width: 0, points: { show: false } })),
      ...(line
        ? [
            {
              paths: uPlot.paths.stepped({ align: 1 }),
              stroke: colour("--ink"),
              width: 1.5,
              dash: [5, 4],
              points: { show: false },
            },
          ]
        : []),
    ],
    hooks: { setCursor: [(plot) => point(plot.cursor.left < 0 || plot.cursor.idx === null ? null : under(plot))] },
  };
}

const isMidnight = (at) => new Date(at * 1000).getHours() === 0;

/** The bar under the pointer: that which began last, not that which begins nearest. */
function under(plot) {
  const at = plot.posToVal(plot.cursor.left, "x");
  const index = plot.data[0].findLastIndex((each) => each <= at);
  return index < 0 || index > plot.data[0].length - 2 ? null : index;
}
