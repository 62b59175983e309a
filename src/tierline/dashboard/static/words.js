// Numbers, times and names as people read them.

import { h } from "./vendor/preact.js";

const LONGEST_NAME = 80;
const LONGEST_TITLE = 400;
const HALF_A_DAY = 43_200;
const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const minute = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const numbered = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });
const day = new Intl.DateTimeFormat("en", { weekday: "short", month: "short", day: "numeric" });
const utcDay = new Intl.DateTimeFormat("en", { weekday: "short", month: "short", day: "numeric", timeZone: "UTC" });
const full = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });

export const number = (count) => whole.format(count ?? 0);

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** A share as `42%`; one digit after the point below ten, and never 0% or 100% of what is not. */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value > 0 && value < 0.1) return "<0.1%";
  if (value > 99.9 && value < 100) return ">99.9%";
  return `${value.toFixed(value !== 0 && Math.abs(value) < 10 && value % 1 ? 1 : 0).replace("-", "−")}%`;
}

/** How much more or less than before: `+12%`; empty where there is nothing to compare with. */
export function change(now, before) {
  if (!before) return "";
  const share = now / before - 1;
  const text = Math.abs(share) >= 10 ? `×${number(Math.round(now / before))}` : percent(Math.abs(share));
  return share === 0 ? "as before" : text.startsWith("×") ? text : `${share < 0 ? "−" : "+"}${text}`;
}

/** Seconds in the two largest units that say something. */
export function duration(seconds) {
  const left = Math.max(0, seconds);
  if (left < 0.9995) return `${Math.round(left * 1000)} ms`;
  if (left < 10) return `${left.toFixed(1)} s`;
  let rest = Math.round(left);
  const parts = [];
  for (const [unit, length] of UNITS) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count || parts.length) parts.push([count, unit]);
  }
  return parts
    .slice(0, 2)
    .filter(([count]) => count)
    .map((part) => part.join(" "))
    .join(" ");
}

const date = (at) => new Date(at * 1000);
const sameDay = (one, other) => date(one).toDateString() === date(other).toDateString();

/** A moment in the viewer's time, exact on request; with its day where the hour alone might be another's. */
export function When({ at, now, seconds = false }) {
  const text = (seconds ? clock : minute).format(date(at));
  const shown =
    sameDay(at, now) || Math.abs(at - now) < HALF_A_DAY
      ? text
      : `${numbered.format(date(at))}, ${minute.format(date(at))}`;
  return h("time", { dateTime: date(at).toISOString(), title: full.format(date(at)) }, shown);
}

export const moment = (at) => full.format(date(at));
export const timeOf = (at) => minute.format(date(at));
export const dayOf = (at, utc = false) => (utc ? utcDay : day).format(date(at));
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

// What cannot be seen, or turns the letters around it, would let one name look like another.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

const codeOf = (character) => `<U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}>`;

/** The start of a name of any length, in which everything can be seen, without half of a character at its end. */
export function cut(text, most = LONGEST_NAME) {
  const start = text.length <= most ? text : `${Array.from(text.slice(0, most)).slice(0, -1).join("")}…`;
  return start.replace(UNSEEN, codeOf);
}

/** A name that others chose: isolated, so that its direction stays its own, and bounded. */
export function Name({ of, none = "(none)" }) {
  if (of === null || of === undefined || of === "") return h("span", { class: "none" }, none);
  const text = String(of);
  return h("bdi", { class: "name", title: cut(text, LONGEST_TITLE) }, cut(text));
}

/** What is said beside something, a word apart for those who hear it. */
export const Aside = ({ children }) => [" ", h("span", { key: "aside", class: "aside" }, children)];

/** For screen readers only. */
export const hidden = (text) => h("span", { class: "hidden" }, text);
