// One decision: why the call went to its tier, what was tried, what it cost, and where its trace is.

import { h } from "./vendor/preact.js";
import { Exact, exact, nano, share } from "./money.js";
import { Modal } from "./modal.js";
import { Tier } from "./tiers.js";
import { Aside, cut, duration, moment, number, percent } from "./words.js";

const SOURCES = {
  pin: "the policy names the tier",
  label: "the policy says what these calls are",
  explicit: "the request names the model",
  keyword: "words in the request",
  signal: "the form of the request",
  route: "what this route has taught",
  local: "the local model",
  claude: "Claude's verdict",
  cache: "a verdict from the cache",
  sticky: "the conversation's tier is kept",
  step: "what an agent's step is",
  fixed: "a constant",
  default: "nobody had an opinion",
};
const ROLES = {
  first: "first",
  retry: "the same again",
  fallback: "after a failure",
  escalation: "after a poor answer",
  speculative: "ahead of the verdict",
};
const MILLISECOND = 0.001;
const LONGEST_VALUE = 12_000;

/** A link to a trace by its template. Null where there is none, or where it leads anywhere but to a web page. */
export function traceLink(template, id) {
  if (!template || !id) return null;
  try {
    const link = new URL(template.replaceAll("{trace_id}", encodeURIComponent(id)));
    return link.protocol === "http:" || link.protocol === "https:" ? link.href : null;
  } catch {
    return null;
  }
}

export function Decision({ row, overview, close }) {
  const ladder = overview?.tiers ?? [];
  const cost = nano(row.cost);
  const saved = nano(row.saved);
  const link = traceLink(overview?.trace, row.trace_id);
  const top = ladder.at(-1) ?? "the top tier";
  return h(
    Modal,
    { title: ["Why ", h("bdi", { key: "tier" }, cut(row.tier || row.outcome, 40))], close, class: "decision" },
    h(
      "p",
      { class: "lead" },
      h(Tier, { of: row.tier, ladder }),
      " ",
      h(Text, { of: row.model }),
      row.outcome !== "ok" && h("b", { class: "badge bad" }, row.outcome),
    ),
    h("section", { "aria-labelledby": "reasons" }, h("h3", { id: "reasons" }, "Reasons"), h(Reasons, { row })),
    h(
      "section",
      { "aria-labelledby": "attempts" },
      h("h3", { id: "attempts" }, "Attempts"),
      h(Attempts, { row, ladder }),
    ),
    h(
      "section",
      { "aria-labelledby": "cost-of" },
      h("h3", { id: "cost-of" }, "Money"),
      h(
        "dl",
        { class: "facts" },
        h(Fact, { name: "Cost" }, h(Exact, { of: cost }), row.estimated && h("b", { class: "badge" }, "estimated")),
        h(Fact, { name: ["On ", h("bdi", { key: "top" }, top)] }, h(Exact, { of: cost + saved })),
        h(
          Fact,
          { name: saved < 0n ? "Cost more" : "Saved" },
          h(Exact, { of: saved < 0n ? -saved : saved }),
          cost + saved > 0n && h(Aside, null, percent(Math.abs(share(saved, cost + saved)))),
        ),
        nano(row.classifier_cost) > 0n &&
          h(Fact, { name: "Of it, the verdict" }, h(Exact, { of: row.classifier_cost })),
        nano(row.grading_cost) > 0n && h(Fact, { name: "Of it, grades" }, h(Exact, { of: row.grading_cost })),
      ),
    ),
    h(
      "section",
      { "aria-labelledby": "call" },
      h("h3", { id: "call" }, "The call"),
      h(
        "dl",
        { class: "facts" },
        h(Fact, { name: "Route" }, h(Text, { of: row.route, none: "(no route)" })),
        h(Fact, { name: "Account" }, h(Text, { of: row.tenant, none: "(no tenant)" })),
        row.run && h(Fact, { name: "Run" }, h(Text, { of: row.run })),
        h(Fact, { name: "Settled" }, moment(row.at)),
        h(
          Fact,
          { name: "Took" },
          duration(row.latency_s ?? 0),
          row.classifier_latency_s >= MILLISECOND &&
            h(Aside, null, `classifying ${duration(row.classifier_latency_s)}`),
        ),
        h(Fact, { name: "Tokens" }, tokens(row.usage)),
        Object.entries(row.tags ?? {}).map(([key, value]) =>
          h(Fact, { key: `tag ${key}`, name: h("bdi", null, cut(key, 60)) }, h(Text, { of: value })),
        ),
        row.worker && h(Fact, { name: "Worker" }, h(Text, { of: row.worker })),
        h(Fact, { name: "Id" }, h("code", null, row.id)),
        h(
          Fact,
          { name: "Trace" },
          link
            ? h("a", { href: link, target: "_blank", rel: "noopener noreferrer" }, "open the trace")
            : row.trace_id
              ? h("code", null, row.trace_id)
              : "not recorded",
        ),
      ),
    ),
  );
}

function Reasons({ row }) {
  const reasons = row.reasons ?? [];
  const label = row.label ? ["Judged ", h("b", { key: "l" }, h("bdi", null, row.label))] : "Chosen";
  return h(
    "ol",
    { class: "reasons" },
    h(
      "li",
      { key: "(label)" },
      label,
      ` by ${SOURCES[row.source] ?? row.source}`,
      row.confidence > 0 && `, ${percent(row.confidence)} sure`,
      row.requested_tier && [": wanted ", h("bdi", { key: "r" }, row.requested_tier)],
    ),
    reasons.map((reason, place) => h("li", { key: place }, h(Text, { of: reason }))),
    row.explored && h("li", { key: "(explored)" }, "Sent to a neighbouring tier, to find out how good that is"),
    row.chances &&
      h(
        "li",
        { key: "(chances)" },
        "How likely each tier was thought good enough: ",
        Object.entries(row.chances).map(([tier, good], place) => [
          place > 0 && ", ",
          h("bdi", { key: tier }, tier),
          ` ${percent(good)}`,
        ]),
      ),
    row.observed &&
      h(
        "li",
        { key: "(observed)" },
        "Only observed. It would have been ",
        row.observed.tier === null ? "refused" : h("bdi", null, row.observed.tier),
        row.observed.why && [": ", h("bdi", { key: "w" }, row.observed.why)],
      ),
  );
}

function Attempts({ row, ladder }) {
  const attempts = row.attempts ?? [];
  if (!attempts.length) return h("p", { class: "none" }, "Nothing was sent.");
  return h(
    "table",
    { class: "cards", role: "table" },
    h("caption", { class: "hidden" }, "Attempts in order"),
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        ["#", "Tier", "Why", "Outcome", "Tokens", "Took", "Cost"].map((head) =>
          h(
            "th",
            { key: head, scope: "col", role: "columnheader", class: head === "Cost" || head === "Took" ? "n" : "" },
            head,
          ),
        ),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      attempts.map((each, place) =>
        h(
          "tr",
          { key: place, role: "row" },
          h("th", { scope: "row", role: "rowheader" }, place + 1),
          h("td", { role: "cell", "data-label": "Tier" }, h(Tier, { of: each.tier, ladder })),
          h("td", { role: "cell", "data-label": "Why" }, ROLES[each.role] ?? each.role),
          h(
            "td",
            { role: "cell", "data-label": "Outcome" },
            each.outcome === "ok" ? "ok" : h("b", { class: "badge warn" }, each.outcome),
          ),
          h("td", { role: "cell", "data-label": "Tokens" }, tokens(each.usage)),
          h("td", { role: "cell", "data-label": "Took", class: "n" }, duration(each.seconds ?? 0)),
          h(
            "td",
            { role: "cell", "data-label": "Cost", class: "n" },
            exact(nano(each.cost)),
            each.estimated && h(Aside, null, "estimated"),
          ),
        ),
      ),
    ),
  );
}

function tokens(usage) {
  if (!usage || !Object.values(usage).some(Boolean)) return "–";
  const written = (usage.cache_write_5m ?? 0) + (usage.cache_write_1h ?? 0);
  const parts = [`${number(usage.input_tokens)} in`, `${number(usage.output_tokens)} out`];
  if (usage.cache_read) parts.push(`${number(usage.cache_read)} from the cache`);
  if (written) parts.push(`${number(written)} into it`);
  if (usage.web_searches) parts.push(`${number(usage.web_searches)} searches`);
  return parts.join(", ");
}

const Fact = ({ name, children }) => h("div", null, h("dt", null, name), h("dd", null, children));

/** A text of others, whole up to a bound, in a box of its own that scrolls. */
function Text({ of, none }) {
  if (of === null || of === undefined || of === "") return h("span", { class: "none" }, none ?? "–");
  return h(String(of).length > 200 ? LongText : Plain, { text: cut(String(of), LONGEST_VALUE) });
}

const Plain = ({ text }) => h("bdi", { class: "text" }, text);
const LongText = ({ text }) =>
  h("div", { class: "text long", tabIndex: 0, role: "group", "aria-label": "long text" }, h("bdi", null, text));
