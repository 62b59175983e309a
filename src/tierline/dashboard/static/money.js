// Money is a BigInt of nano-USD from the JSON to the text: no number of JavaScript holds it exactly.

import { h } from "./vendor/preact.js";

const NANO = 1_000_000_000n;
const MOST_PLACES = 9;

/** Nano-USD as the JSON has it (text of digits), as a BigInt; 0 for what is none. */
export function nano(text) {
  try {
    return BigInt(text ?? 0);
  } catch {
    return 0n;
  }
}

export const sum = (amounts) => amounts.reduce((total, each) => total + nano(each), 0n);

const size = (amount) => (amount < 0n ? -amount : amount);

/** Dollars with exactly `places` digits after the point, rounded half up. */
function rounded(amount, places) {
  const unit = 10n ** BigInt(MOST_PLACES - places);
  const whole = (size(amount) + unit / 2n) / unit;
  const digits = whole.toString().padStart(places + 1, "0");
  const dollars = digits.slice(0, digits.length - places).replace(/\B(?=(\d{3})+$)/g, ",");
  const text = places ? `${dollars}.${digits.slice(-places)}` : dollars;
  return `${amount < 0n && whole ? "-" : ""}$${text}`;
}

/** Every digit that there is, and two at least: `$1.20`, `$0.000034`. */
export function exact(amount) {
  const [dollars, digits] = rounded(amount, MOST_PLACES).split(".");
  return `${dollars}.${digits.replace(/0+$/, "").padEnd(2, "0")}`;
}

/** How many digits after the point a column needs whose largest amount is `largest`: three that say something. */
function placesFor(largest) {
  let places = 2;
  for (let bound = NANO; size(largest) < bound && places < MOST_PLACES; bound /= 10n) places += 1;
  return largest === 0n ? 2 : places;
}

export function placesOf(amounts) {
  return placesFor(amounts.map(nano).reduce((most, each) => (size(each) > most ? size(each) : most), 0n));
}

/** A text for what is shown: short, and never $0.00 for what is not nothing. */
export function short(amount, places = placesFor(amount)) {
  const text = rounded(amount, places);
  if (amount === 0n || /[1-9]/.test(text)) return text;
  return `${amount < 0n ? "-" : ""}<${rounded(10n ** BigInt(MOST_PLACES - places), places)}`;
}

/** An amount: short to read, exact on request and for programs. */
export function Money({ of, places, ...rest }) {
  const amount = nano(of);
  return h("data", { ...rest, value: amount.toString(), title: exact(amount) }, short(amount, places));
}

/** An amount with all its digits. Beside dollars, those past the cents are small. */
export function Exact({ of, ...rest }) {
  const amount = nano(of);
  const text = exact(amount);
  const cents = size(amount) < NANO ? text.length : text.indexOf(".") + 3;
  return h("data", { ...rest, value: amount.toString() }, text.slice(0, cents), h("small", null, text.slice(cents)));
}

/** `part` of `whole` as a number, for bars and percentages only. */
export function share(part, whole) {
  return whole === 0n ? 0 : Number((part * 1_000_000n) / whole) / 1_000_000;
}

/** Dollars as a number, for pixels only. */
export const dollars = (amount) => Number(amount) / 1e9;
