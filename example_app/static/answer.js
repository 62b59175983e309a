// One answer, drawn. Whatever comes from outside is set as text, never as markup.

const TIERS = ["haiku", "sonnet", "opus"];
const SOURCES = {
  pin: "the route names it",
  label: "the route says how hard it is",
  explicit: "the request names a model",
  keyword: "words of the question",
  signal: "how the question looks",
  route: "what this route has taught",
  local: "local weights",
  claude: "a question to the cheapest tier",
  cache: "a verdict that was known",
  sticky: "the conversation stays on its tier",
  step: "what step of an agent this is",
  fixed: "always the same",
  default: "nobody had an opinion",
};

/** An element with attributes and children; texts become text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function fact(name, ...value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
}

function ladder(tier) {
  const steps = TIERS.map((name) => make("span", { class: "step", "data-tier": name, "data-taken": name === tier }));
  return make("span", { class: "ladder", "aria-hidden": "true" }, ...steps);
}

function factsOf(why) {
  const asked = why.requested_tier === why.tier ? [] : [make("small", {}, ` instead of ${why.requested_tier}`)];
  if (why.observed !== null) asked.push(make("small", { class: "observed" }, why.observed ? ` (would have been ${why.observed})` : " (would have been refused)"));
  return make("dl", { class: "facts" },
    fact("Tier", ladder(why.tier), make("strong", { class: "tier" }, why.tier), ...asked),
    fact("Chosen by", make("span", { class: "source" }, sourceOf(why.source))),
    fact("Cost", make("span", { class: "cost" }, why.cost), make("small", {}, why.estimated ? " (estimated)" : "")),
    fact("All on the top tier", make("span", { class: "top" }, why.top)),
    fact(why.saved.startsWith("-") ? "Dearer by" : "Saved", make("span", { class: "saved" }, why.saved.replace("-", "")),
      make("small", {}, why.saved_share > 0 ? ` (${Math.floor(why.saved_share * 100)}%)` : "")),
    fact("Time", `${why.seconds.toFixed(2)} s`),
  );
}

function reasonsOf(why) {
  const reasons = make("ol", { class: "reasons" }, ...why.reasons.map((reason) => make("li", {}, reason)));
  const rows = why.attempts.map((each) => make("tr", {},
    make("th", { scope: "row" }, each.tier), make("td", {}, each.role), make("td", {}, each.outcome),
    make("td", { class: "number" }, each.cost), make("td", { class: "number" }, `${each.seconds.toFixed(2)} s`)));
  const heads = [["Tier"], ["As"], ["Ended"], ["Cost", "number"], ["Time", "number"]];
  const table = make("table", {}, make("caption", {}, "Requests to Claude"),
    make("thead", {}, make("tr", {}, ...heads.map(([head, kind = null]) => make("th", { scope: "col", class: kind }, head)))),
    make("tbody", {}, ...rows));
  return make("details", { open: true }, make("summary", {}, "Why"),
    why.reasons.length ? reasons : make("p", {}, "Nothing spoke against that tier."),
    make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Requests to Claude" }, table),
    ...(why.trace ? [make("p", {}, make("a", { href: why.trace, rel: "noreferrer" }, "Its trace"))] : []));
}

function tableOf(caption, heads, rows) {
  const table = make("table", { class: "texts" }, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map(([first, ...cells]) =>
      make("tr", {}, make("th", { scope: "row" }, first), ...cells.map((cell) => make("td", {}, cell))))));
  return make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": caption }, table);
}

/** Who chose a tier, in words. */
export const sourceOf = (source) => SOURCES[source] ?? source;

function thumbs(onThumb) {
  const said = make("span", { class: "said", role: "status" });
  const buttons = [[true, "Good answer"], [false, "Poor answer"]].map(([good, name]) => {
    const button = make("button", { type: "button", class: "quiet", "aria-pressed": "false" }, name);
    button.addEventListener("click", async () => {
      for (const each of buttons) each.disabled = true;
      try {
        const counted = await onThumb(good);
        button.setAttribute("aria-pressed", "true");
        said.textContent = counted ? "Thank you: this route learns from it." : "This answer had its grade already.";
      } catch (error) {
        for (const each of buttons) each.disabled = false;
        said.textContent = `That could not be sent: ${error.message || "try again"}.`;
      }
    });
    return button;
  });
  return make("div", { class: "thumbs" }, ...buttons, said);
}

function soon(seconds) {
  if (seconds < 90) return `in ${seconds} seconds`;
  if (seconds < 5400) return `in ${Math.round(seconds / 60)} minutes`;
  return `in ${Math.round(seconds / 3600)} hours`;
}

/** What a refusal means for whoever asked. */
export function inWords(error, who) {
  const again = error.after ? ` Come back ${soon(error.after)}.` : "";
  switch (error.status) {
    case 429: return `${who} has used up its plan for now, even for the cheapest tier. Nothing was sent, and nothing was charged.${again}`;
    case 402: return `There is no room for this in the plan of ${who}, and waiting does not help: the question may cost more than all of it.`;
    case 503: return `${error.message || "The service is busy"}. It is not about your question.${again || " Try again in a moment."}`;
    case 401: return "The desk does not know this key.";
    case 422: return "The desk could not read the question.";
    case 0: return error.message;
    default: return error.status ? `${error.message || "That did not work"} (${error.status}).` : "The desk cannot be reached.";
  }
}

/** A new entry of the list, and what may be said of it as it comes. */
export function entry(list, who, kind, question) {
  const text = make("div", { class: "text", "aria-busy": "true", dir: "auto" });
  const head = make("p", { class: "head" }, make("span", { class: "who" }, who), ` · ${kind}`);
  const item = make("li", {}, make("article", { "aria-label": `Answer to ${who}` }, head,
    make("p", { class: "question", dir: "auto" }, question), text));
  const article = item.firstChild;
  list.prepend(item);
  item.scrollIntoView({ block: "nearest" });
  return {
    add(piece) {
      if (text.dataset.waits) { delete text.dataset.waits; text.textContent = ""; }
      text.append(piece);
    },
    waiting(words) { text.textContent = words; text.dataset.waits = "1"; },
    show(caption, heads, rows) { article.append(tableOf(caption, heads, rows)); },
    plain(words) {
      text.setAttribute("aria-busy", "false");
      if (!text.textContent || text.dataset.waits) text.remove();
      if (words) article.append(make("p", { class: "note" }, words));
    },
    settle(why, onThumb) {
      text.setAttribute("aria-busy", "false");
      article.append(factsOf(why), reasonsOf(why), ...(why.handle ? [thumbs(onThumb)] : []));
    },
    stopped(kind) {
      text.setAttribute("aria-busy", "false");
      const said = kind === "chat" ? "What had come until then is charged."
        : kind === "later" || kind === "job" ? "It comes all the same, and this page does not wait for it."
          : "The answer is made all the same, and charged.";
      article.append(make("p", { class: "note" }, `Stopped. ${said}`));
    },
    refuse(error, words) {
      text.setAttribute("aria-busy", "false");
      if (!text.textContent) text.remove();
      const status = error.status ? make("strong", {}, `${error.status} `) : "";
      article.append(make("p", { class: "refusal" }, status, words));
    },
  };
}
