// What the try-it form and the table of many rows share: the values' check, the API, the words for
// money. No row comes near it but sealed.

import { Refused, demand } from "./mpc/wire.js";

const DEADLINE_MS = 90_000;
const WAIT_S = 2; // what the server may hold an answer back, so that we see its state in between
const PAUSE_MS = 500;
const DECIMALS = 6;
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$/;

export const NOTHING_PAID = "Nothing was charged.";
// In a window of its own: what has been typed here stays.
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

// What is wrong with a value, in words; "" where nothing is.
export const complaint = (text, low, high) => {
  if (text === "") return "Missing.";
  if (text.includes(",")) return "Write a point before the decimals, no comma.";
  if (!NUMBER.test(text) || !Number.isFinite(Number(text))) return "Not a number.";
  if (low !== undefined && Number(text) < Number(low)) return `Must be at least ${low}.`;
  if (high !== undefined && Number(text) > Number(high)) return `Must be at most ${high}.`;
  return "";
};

const percent = (p, digits = 0) => `${(100 * p).toFixed(digits)} %`;

// An answer in words: {value, text}, and for the page the part of the scale, low to high, that is filled.
export const inWords = (answer, positive) => {
  if ("label" in answer) {
    const text = answer.label ? positive : `not ${positive}`;
    return { value: text, text, low: 0, high: 0 };
  }
  if ("low" in answer) {
    const { low, high } = answer;
    return { value: `${low}..${high}`, text: `${(100 * low).toFixed(0)} to ${percent(high)}`, low, high };
  }
  const { probability: high } = answer;
  return { value: String(high), text: percent(high, "logit" in answer ? 1 : 0), low: 0, high };
};

// The columns of a file of answers at a resolution, and an answer's cells in them.
export const COLUMNS = {
  label: ["label"],
  band: ["probability_low", "probability_high"],
  rounded: ["probability"],
  logit: ["probability", "logit"],
};
export const cells = (answer, positive) => {
  if ("label" in answer) return [inWords(answer, positive).value];
  if ("low" in answer) return [answer.low, answer.high].map((p) => p.toFixed(1));
  return "logit" in answer
    ? [answer.probability, answer.logit].map((x) => x.toFixed(DECIMALS))
    : [answer.probability.toFixed(2)];
};

export const over = (state) => state === "settled" || state === "released";

// The API as the form names it. `names` are the features that the page was made for, in order.
export const api = (form, names) => {
  const { api: base, listing: slug, priceMicro, resolution } = form.dataset;

  const call = async (path, options = {}) => {
    const answer = await fetch(base + path, { credentials: "same-origin", cache: "no-store", ...options });
    const body = await answer.json().catch(() => ({}));
    // What a server can't say for sure (5xx, 429) may have happened: it is asked again.
    if (answer.status >= 500 || answer.status === 429) throw new TypeError(`the server answered ${answer.status}`);
    if (!answer.ok) throw new Refused(body.code ?? "refused", body.detail ?? "The site refused this.", { facts: body });
    return body;
  };

  // The listing, if it still is what this page shows. Throws Refused("changed").
  const listed = async () => {
    const listing = await call(`listings/${slug}/`);
    const now = "The model has changed since this page was made. Nothing was sent. Reload it and look again.";
    const same = listing.price_micro === priceMicro && listing.resolution === resolution;
    demand(listing.status === "open" && same, "changed", now);
    const asked = listing.features.map((feature) => feature.name);
    demand(asked.length === names.length && asked.every((name, i) => name === names[i]), "changed", now);
    return listing;
  };

  const post = (path, body, headers = {}) =>
    call(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": form.elements.csrfmiddlewaretoken.value, ...headers },
      body: JSON.stringify(body),
    });

  // What so many rows cost this buyer, as a quote says: a tier, a rebate or a plan may make them cheaper than
  // the page does, also a plan that is offered no more. Throws Refused("changed") for more than the page says; a
  // running plan's rows are paid already, at the price of when it began.
  const priced = async (rows) => {
    const { price_micro: price, paid_from: from, quote } = await post(`listings/${slug}/quote/`, { rows });
    const known = BigInt(price) <= BigInt(priceMicro) * BigInt(rows) || from === "plan";
    demand(known, "changed", "This costs more than this page says. Nothing was sent. Reload it and look again.");
    return { price, quote };
  };

  const send = ({ upload, key, quote }) =>
    post(
      `listings/${slug}/inferences/`,
      { input: upload, max_price_micro: upload.ticket.price_micro, quote },
      { "Idempotency-Key": key, Prefer: `wait=${WAIT_S}` },
    );

  // The query once it has ended; what goes wrong on the way is tried again until the time is up.
  const ended = async (id, show = () => {}) => {
    const end = Date.now() + DEADLINE_MS;
    for (;;) {
      try {
        const query = await call(`inferences/${id}/`, { headers: { Prefer: `wait=${WAIT_S}` } });
        if (over(query.state)) return query;
        show(query.state);
      } catch (error) {
        if (!(error instanceof TypeError) || Date.now() > end) throw error;
        await new Promise((done) => window.setTimeout(done, PAUSE_MS));
      }
      if (Date.now() > end) throw new TypeError("no answer in time");
    }
  };

  return { listed, priced, send, ended };
};
