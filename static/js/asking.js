// What the try-it form and the table of many rows share: the listing and price that this page shows, and the
// words for answers and money.

import { pairOf } from "./keystore.js";
import { asking } from "./mpc/credentials.js";
import { desk } from "./mpc/desk.js";
import { KEPT, guarded, thresholds, trusted } from "./mpc/pins.js";
import { chance } from "./mpc/tables.js";
import { demand } from "./mpc/wire.js";

export const NOTHING_PAID = "Nothing was charged.";
// In a window of its own: what has been typed here stays.
export const compare = { text: "Compare them", href: "/nodes/#nodes-known", target: "_blank" };
export const wallet = { text: "Add money in your wallet, then pay again here", href: "/wallet/", target: "_blank" };

// Money, as apps/explorer/formatting.py writes it.
export const dollars = (micro) => {
  const value = BigInt(micro);
  const decimals = 0n < value && value < 10_000n ? 6 : 2;
  const cents = String(value % 1_000_000n).padStart(6, "0").slice(0, decimals).replace(/0+$/, "").padEnd(2, "0");
  return `$${(value / 1_000_000n).toLocaleString("en-US")}.${cents}`;
};

// What is missing, up to the next cent: having so much more is enough.
export const shortfall = (micro) => dollars((BigInt(micro) + 9_999n) / 10_000n * 10_000n);

const percent = (p, digits = 0) => `${(100 * p).toFixed(digits)} %`;
const endless = ({ kind }) => kind === "count" || kind === "survival";

// A number without zeros at its end. Of a range it keeps a tenth of its hundredth; of what has no end
// four digits.
const shown = (x, reading) => {
  if (endless(reading)) return Number(x.toPrecision(4)).toString();
  const step = (reading.bands.at(-1) - reading.bands[0]) / 100;
  return Number(x.toFixed(Math.min(Math.max(1 - Math.floor(Math.log10(step)), 0), 12))).toString().replace("-", "−");
};

// One value, or a band's [from, to], in words. The outermost step of what has no end has none either.
const said = (value, reading, answer) => {
  const { resolution, bands, grid } = reading;
  if (chance(reading)) {
    if (Array.isArray(value)) return `${(100 * value[0]).toFixed(0)} to ${percent(value[1])}`;
    return percent(value, "scores" in answer ? 1 : 0);
  }
  const [low, high] = [value].flat();
  const last = resolution === "band" ? high === bands.at(-1) : resolution === "rounded" && low === grid.at(-1);
  if (endless(reading) && last) return `${shown(low, reading)} or more`;
  return [value].flat().map((x) => shown(x, reading)).join(" to ");
};

// Where a value or band lies on its scale, {low, high} of 0 to 1; counts and hazards have no end.
const placed = (value, { kind, bands }) => {
  if (endless({ kind })) return null;
  const [first, last] = [bands[0], bands.at(-1)];
  const [low, high] = (Array.isArray(value) ? value : [first, value]).map((x) =>
    Math.min(Math.max((x - first) / (last - first), 0), 1),
  );
  return { low, high };
};

// An answer in words: {value, text, bar: {low, high} or null, each}, `each` the same of every class
// with its name.
export const inWords = (answer, reading) => {
  const { kind, names } = reading;
  if ("label" in answer) return { value: names[answer.label], text: names[answer.label], bar: null, each: [] };
  const values = answer.values ?? answer.bands;
  const all = values.map((value) => ({
    value: [value].flat().join(".."),
    text: said(value, reading, answer),
    bar: placed(value, reading),
  }));
  if (kind !== "classes") return { ...all[0], each: [] };
  const height = values.map((value) => [value].flat()[0]);
  const highest = names.filter((_, i) => height[i] === Math.max(...height));
  const top = highest.length === names.length ? "none stands out" : highest.join(" or ");
  return { value: top, text: top, bar: null, each: all.map((one, i) => ({ name: names[i], ...one })) };
};

const signed = thresholds(KEPT);

const together = (t) =>
  t === 1
    ? "One node alone learns nothing of a row; two that tell each other all they see can read it."
    : `${t} nodes that tell each other all they see learn nothing of a row; ${t + 1} can read it.`;

// Fewer nodes can read a row than this browser has sealed to: what it was, what it is, who decided it, and the
// choice. `then(accepted)` is called once the person has chosen; nothing is sent for them.
export const askLower = ({ slug, before, now, vote }, then) => {
  const box = document.getElementById("try-lower");
  const part = (name) => box.querySelector(`[data-${name}]`);
  part("before").textContent = together(before);
  part("now").textContent = together(now);
  const link = part("vote").querySelector("a");
  link.hidden = !vote;
  part("unnamed").hidden = Boolean(vote);
  if (vote) {
    const on = new Date(vote.executed_at).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
    Object.assign(link, { href: `/proposals/${encodeURIComponent(vote.proposal)}/`, textContent: `the members’ vote carried out on ${on}` });
  }
  const chosen = (accepted) => () => {
    if (accepted) signed.accept(slug, now);
    box.hidden = true;
    then(accepted);
  };
  part("accept").onclick = chosen(true);
  part("refuse").onclick = chosen(false);
  box.hidden = false;
  box.focus();
};

// The API as the form names it. `features` are those that the page was made for, in order.
export const api = (form, features) => {
  const { api: base, listing: slug, priceMicro, resolution } = form.dataset;
  const token = { "X-CSRFToken": form.elements.csrfmiddlewaretoken.value };
  const asker = async (asked) => {
    const [{ keys }, { results }] = await Promise.all([call("wallet/keys/"), call("credentials/?role=held")]);
    return asking(asked, { rows: results, key: keys.wallet, pairOf });
  };
  const { call, listing, quote, next } = desk({ base, headers: token, credentials: "same-origin", asker });

  // The listing, if it still is what this page shows and its nodes are known here. Throws
  // Refused("changed"), Refused("other_nodes").
  const listed = async () => {
    const found = await listing(slug);
    const now = "The model has changed since this page was made. Nothing was sent. Reload it and look again.";
    const same = found.price_micro === priceMicro && found.resolution === resolution;
    demand(found.status === "open" && same, "changed", now);
    demand(JSON.stringify(found.features) === JSON.stringify(features), "changed", now);
    await trusted(found.nodes);
    guarded(found, signed);
    return found;
  };

  // What so many rows cost this buyer, as a quote says: a tier, a rebate or a plan may make them cheaper than
  // the page does, also a plan that is offered no more. Throws Refused("changed") for more than the page says; a
  // running plan's rows are paid already, at the price of when it began.
  const priced = async (rows) => {
    const { price_micro: price, paid_from: from, quote: token } = await quote(slug, rows);
    const known = BigInt(price) <= BigInt(priceMicro) * BigInt(rows) || from === "plan";
    demand(known, "changed", "This costs more than this page says. Nothing was sent. Reload it and look again.");
    return { price, quote: token };
  };

  return { priced, next: (table, more) => next(table, { listed, priced, ...more }) };
};
