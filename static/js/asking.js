// What the try-it form and the table of many rows share: the values' check, the API, the words for
// money. No row comes near it but sealed.

import { trusted } from "./mpc/pins.js";
import { Refused, demand } from "./mpc/wire.js";

const DEADLINE_MS = 90_000;
const WAIT_S = 2; // what the server may hold an answer back, so that we see its state in between
const PAUSE_MS = 500;
const DECIMALS = 6;
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$/;

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
const chance = ({ kind }) => kind === "binary" || kind === "classes";
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

// The columns of a file of answers, and an answer's cells in them: as workers/client/tables.py.
export const columns = ({ kind, resolution, name, names }) => {
  if (resolution === "label") return ["label"];
  const own = { binary: ["probability"], survival: ["relative_hazard"], classes: names.map((one) => `probability_${one}`) };
  const plain = own[kind] ?? [name];
  if (resolution === "band") return plain.flatMap((one) => [`${one}_low`, `${one}_high`]);
  return resolution === "logit" && kind === "binary" ? [...plain, "logit"] : plain;
};
export const cells = (answer, reading) => {
  if ("label" in answer) return [reading.names[answer.label]];
  const values = (answer.values ?? answer.bands).flat();
  const digits = { band: 1, rounded: 2, logit: DECIMALS }[reading.resolution];
  const texts = values.map((x) => (chance(reading) ? x.toFixed(digits) : String(x)));
  return "scores" in answer && reading.kind === "binary" ? [...texts, answer.scores[0].toFixed(DECIMALS)] : texts;
};

// Might this query still be answered, so that its key must be kept? One that was taken, or that was sent
// without an answer and now meets a closed door: the session may have ended.
export const pending = (open, error) => open?.id != null || (open?.lost === true && [401, 403].includes(error.status));

export const over = (state) => state === "settled" || state === "released";

// The API as the form names it. `names` are the features that the page was made for, in order.
export const api = (form, names) => {
  const { api: base, listing: slug, priceMicro, resolution } = form.dataset;

  const call = async (path, options = {}) => {
    const answer = await fetch(base + path, { credentials: "same-origin", cache: "no-store", ...options });
    const body = await answer.json().catch(() => ({}));
    // What a server can't say for sure (5xx, 429) may have happened: it is asked again.
    if (answer.status >= 500 || answer.status === 429) {
      throw Object.assign(new TypeError(`the server answered ${answer.status}`), { detail: body.detail ?? "" });
    }
    if (!answer.ok) {
      throw new Refused(body.code ?? "refused", body.detail ?? "The site refused this.", { facts: body, status: answer.status });
    }
    return body;
  };

  // The listing, if it still is what this page shows and its nodes are known here. Throws
  // Refused("changed"), Refused("other_nodes").
  const listed = async () => {
    const listing = await call(`listings/${slug}/`);
    const now = "The model has changed since this page was made. Nothing was sent. Reload it and look again.";
    const same = listing.price_micro === priceMicro && listing.resolution === resolution;
    demand(listing.status === "open" && same, "changed", now);
    const asked = listing.features.map((feature) => feature.name);
    demand(asked.length === names.length && asked.every((name, i) => name === names[i]), "changed", now);
    await trusted(listing.nodes);
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
