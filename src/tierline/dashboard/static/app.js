// The page: one state, drawn anew whenever something of it changes. Names of others are only ever text.

import { h, render } from "./vendor/preact.js";
import { Ask } from "./actions.js";
import { Budgets } from "./budgets.js";
import { Charts } from "./charts.js";
import { Decision } from "./decision.js";
import { Decisions, merged } from "./decisions.js";
import { Live, get, post } from "./live.js";
import { Operations } from "./operations.js";
import { Shares } from "./shares.js";
import { Summary, spanOf } from "./summary.js";
import { Aside, When } from "./words.js";

const SPANS = [24, 168, 720];
const STATES = {
  connecting: ["…", "connecting"],
  live: ["●", "live"],
  polling: ["◐", "every 5 s"],
  reconnecting: ["○", "reconnecting"],
  paused: ["‖", "paused"],
  stopped: ["■", "stopped"],
};
const MARK = "#decision=";

/** The period that the address names, or a day. */
function wanted() {
  const hours = Number(new URLSearchParams(location.search).get("hours"));
  return SPANS.includes(hours) ? hours : SPANS[0];
}

const state = {
  hours: wanted(),
  overview: null,
  shown: 0, // the period that `overview` is of
  rows: [],
  link: "connecting",
  sentence: "",
  open: null,
  missing: "",
  asked: null,
  done: "",
};
let drawing = false;

function change(what) {
  Object.assign(state, what);
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    drawing = false;
    render(h(Page, state), document.getElementById("app"));
  });
}

const live = new Live({
  overview: (overview) => change({ overview, shown: state.hours }),
  decisions: (rows) => change({ rows: merged(rows, state.rows) }),
  state: (link, sentence = "") => (link !== state.link || sentence !== state.sentence) && change({ link, sentence }),
});

function watch(hours) {
  history.replaceState(null, "", `?hours=${hours}${location.hash}`);
  change({ hours });
  live.watch(hours);
}

function open(row) {
  history.replaceState(null, "", MARK + encodeURIComponent(row.id));
  change({ open: row, missing: "" });
}

function close() {
  history.replaceState(null, "", location.pathname + location.search);
  change({ open: null });
}

/** Opens the decision that the address names. */
async function follow() {
  if (!location.hash.startsWith(MARK)) return;
  try {
    const id = decodeURIComponent(location.hash.slice(MARK.length));
    if (state.open?.id !== id) change({ open: await get(`api/decisions/${encodeURIComponent(id)}`), missing: "" });
  } catch (error) {
    change({
      missing:
        error.status === 404
          ? "That decision is no longer kept."
          : "The decision in this page's address cannot be shown.",
    });
  }
}

function done() {
  const words = {
    limit: "The limit is set.",
    breaker: "The breaker is closed.",
    verdicts: "The verdict cache is cleared.",
  };
  change({ done: words[state.asked.kind], asked: null });
  live.watch(state.hours);
}

async function signOut() {
  try {
    await post("sign-out", null, state.overview.csrf);
    location.reload();
  } catch (error) {
    change({ missing: error.message });
  }
}

function Page({ overview, shown, hours, rows, link, sentence, open: opened, missing, asked, done: words }) {
  const act = (what) => change({ asked: what, done: "" });
  return [
    h(
      "header",
      { key: "head", class: "top" },
      h(
        "h1",
        null,
        "Tierline",
        overview && overview.mode !== "enforce" && h("b", { class: "badge warn" }, `mode ${overview.mode}`),
      ),
      h(
        "p",
        { class: `state ${link}` },
        h("span", { role: "status" }, h("span", { "aria-hidden": "true" }, STATES[link][0], " "), STATES[link][1]),
        overview && h(Aside, null, "as of ", h(When, { at: overview.now, now: overview.now, seconds: true })),
      ),
      h(
        "fieldset",
        { class: "spans" },
        h("legend", { class: "hidden" }, "Period"),
        SPANS.map((each) =>
          h(
            "label",
            { key: each },
            h("input", {
              type: "radio",
              name: "hours",
              value: each,
              checked: each === hours,
              onChange: () => watch(each),
            }),
            h("span", null, spanOf(each)),
          ),
        ),
      ),
    ),
    h(
      "main",
      { key: "main", "aria-busy": String(overview === null) },
      h(
        "div",
        { key: "notes", role: "alert" },
        overview?.trouble && h("p", { class: "trouble" }, overview.trouble),
        link === "stopped" && h("p", { class: "trouble" }, sentence, " ", h("a", { href: "" }, "Load it again")),
        missing && h("p", { class: "trouble" }, missing),
      ),
      h("p", { key: "done", role: "status", class: words ? "done" : "hidden" }, words),
      overview === null &&
        link !== "stopped" &&
        h(
          "p",
          { key: "wait", class: "none" },
          link === "reconnecting" ? "The server cannot be reached. It is asked again every few seconds." : "Loading…",
        ),
      overview && [
        h(Summary, { key: "summary", overview, hours: shown }),
        h(Charts, { key: "charts", overview }),
        h(Budgets, { key: "budgets", overview, act }),
        h(Shares, { key: "shares", overview }),
        h(Decisions, { key: "decisions", rows, now: overview.now, ladder: overview.tiers, open }),
        h(Operations, { key: "operations", overview, act }),
      ],
    ),
    h(
      "footer",
      { key: "foot" },
      overview?.sign_out && h("button", { type: "button", class: "quiet", onClick: signOut }, "Sign out"),
      overview &&
        h("p", null, `Tierline ${overview.version}. Times are yours; money is in US dollars, kept in billionths.`),
    ),
    opened && h(Decision, { key: `decision ${opened.id}`, row: opened, overview, close }),
    asked && h(Ask, { key: "ask", asked, csrf: overview?.csrf, close: () => change({ asked: null }), done }),
  ];
}

addEventListener("hashchange", follow);
change({});
live.watch(state.hours);
follow();
