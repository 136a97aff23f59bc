// Private predictions from your own page or program: rows are shared and sealed here, answers opened here.
//
//   const client = new Client({ url: "https://SITE", key });
//   const answers = await client.predict("slug", [[1.5, 20]], { maxPrice: "0.50" });
//
// A plain ES module for browsers and, from the package that the site serves under /downloads/, for Node.js 20
// and later. The twin of workers/client/buyer.py. What goes wrong is a Refused, with `code` and `message`.

import { Unsure, desk, fresh, pause, pending, tableOf } from "./mpc/desk.js";
import { fingerprint } from "./mpc/nodes.js";
import { KEPT, guarded, shelf, thresholds, trusted } from "./mpc/pins.js";
import { levelsOf, valueOf } from "./mpc/encoding.js";
import { complaint, record } from "./mpc/tables.js";
import { Refused, demand, isHex } from "./mpc/wire.js";

export { Refused };

const RETRY_FOR_S = 30;
const PAUSE_S = 0.5;
const PRICE = /^(\d{1,12})(?:\.(\d{1,6}))?$/;

// "0.50" or 0.5 -> 500000n.
const micro = (price) => {
  const [, whole, part = ""] = PRICE.exec(String(price)) ?? [];
  demand(whole !== undefined, "bad_price", `${price} is no price: write an amount like "0.50", with six decimals at most.`);
  return BigInt(whole) * 1_000_000n + BigInt(part.padEnd(6, "0"));
};

// Rows as numbers and level names in the model's order. A row is an array in that order, or an object by the features' names, whose
// further members stay here. Throws Refused("bad_row"), naming row and feature.
const valuesOf = (rows, features) => {
  const bad = (text) => demand(false, "bad_row", `${text} Nothing was sent.`);
  if (!Array.isArray(rows) || !rows.length) bad("There is no row to predict.");
  return rows.map((row, at) => {
    const named = !Array.isArray(row);
    if (named && (typeof row !== "object" || row === null)) bad(`Row ${at + 1} is neither an array nor an object.`);
    if (!named && row.length !== features.length) bad(`Row ${at + 1} has ${row.length} values; the model takes ${features.length}.`);
    return features.map((feature, i) => {
      const { name } = feature;
      const value = named ? (Object.hasOwn(row, name) ? row[name] : undefined) : row[i];
      const plain = typeof value === "number" || (levelsOf(feature).length && ["string", "boolean"].includes(typeof value));
      const text = value === undefined || value === null ? "" : plain ? String(value) : "?";
      const wrong = complaint(text, feature);
      if (wrong) bad(`Row ${at + 1}, “${name}”: ${wrong}`);
      return valueOf(text, feature);
    });
  });
};

// What a table's queries have cost so far.
const paidOf = (table) => table.paid.reduce((sum, { priceMicro }) => sum + BigInt(priceMicro), 0n);

// What rows and answers mean.
const meansOf = ({ features, reading }) => JSON.stringify([features, reading]);

// The nodes that somebody named, by descriptors or fingerprints; a successor of theirs too, while it runs.
const pinned = (nodes) => {
  let held = null;
  const read = async () => {
    const prints = await Promise.all(nodes.map((node) => (typeof node === "string" ? node : fingerprint(node))));
    demand(prints.every((print) => isHex(print, 32)), "bad_nodes", "`nodes` takes descriptors or fingerprints of 64 hex digits.");
    held = prints;
  };
  const ready = read();
  ready.catch(() => {}); // who predicts hears of it
  return { given: true, ready, known: () => held, keep: (prints) => (held = prints) };
};

export class Client {
  #desk;
  #url;
  #pins;
  #thresholds;
  #agreed;
  #retryMs;
  #seen = new Map(); // slug -> what a row cost when this client first looked
  #kept = new Map(); // idempotency key -> what is asked under it

  // url: the site. key: an API key with the scopes "read" and "inferences". nodes: the descriptors or fingerprints
  // that you know the nodes by; without them the nodes that are seen first are believed on the site's word, and kept
  // where there is a browser's store. threshold: how many nodes at least shall learn nothing of a row by telling each
  // other all that they see; without it the highest that was signed for the listing, kept in the same place.
  // acceptThreshold: so many are enough from now on, where the members have voted for fewer ("threshold_too_low" names
  // the vote in `lower`).
  // asker: {pair, proof}, a signing key pair (Ed25519) and what `wallet lend` gave it, for models whose nodes ask for a
  // credential.
  // retryForS: so long a call is tried again that the site could not answer.
  constructor({ url, key, nodes = null, threshold = null, acceptThreshold = null, asker = null, retryForS = RETRY_FOR_S }) {
    for (const told of [threshold, acceptThreshold]) {
      const whole = told === null || (Number.isInteger(told) && told > 0);
      demand(whole, "bad_threshold", "`threshold` and `acceptThreshold` are whole numbers of nodes.");
    }
    demand(threshold === null || acceptThreshold === null, "bad_threshold", "Give `threshold` or `acceptThreshold`, not both.");
    demand(/^https?:\/\/[^/]/.test(url ?? ""), "bad_url", `${url} is no address of a site: it begins with https://.`);
    demand(/^[\x21-\x7e]+$/.test(key ?? ""), "bad_key", "This is no whole API key: copy it where it was made, without “…”.");
    this.#url = new URL(url).origin;
    const headers = { Authorization: `Bearer ${key}` };
    this.#desk = desk({ base: `${this.#url}/api/v1/`, headers, credentials: "omit", asker: asker && (async () => asker) });
    const name = globalThis.location?.origin === this.#url ? KEPT : `${KEPT} ${this.#url}`;
    this.#pins = nodes ? pinned(nodes) : shelf(name);
    this.#thresholds = thresholds(name);
    this.#agreed = { least: threshold, accepted: acceptThreshold };
    this.#retryMs = 1000 * retryForS;
  }

  // The fingerprints of the nodes that this client seals to, or null before the first time: compare them with
  // those that the operators publish, and give them as `nodes` from then on.
  get nodes() {
    return this.#pins.known();
  }

  // What the site says of a model: features with their ranges, price, normalisation, how its answers are read.
  async listing(slug) {
    const found = await this.#tried(() => this.#desk.listing(slug));
    if (!this.#seen.has(slug)) this.#seen.set(slug, BigInt(found.price_micro));
    return found;
  }

  // What so many rows cost you now. Nothing is moved.
  quote(slug, rows) {
    return this.#tried(() => this.#desk.quote(slug, rows));
  }

  // The answers, an object a row: {probability, logit}, {label}, …, by the names of the table's columns that the
  // Python client makes; the array's `priceMicro` and `queries` say what was paid. Held when asked, paid when
  // answered, released if anything fails.
  //
  // maxPrice: the most that these rows may cost together, as "0.50"; without it so much a row as this client saw
  // first, whatever the site says pays them: rows of a plan that began before the price fell need a maxPrice.
  // idempotencyKey: the same call again, after an error, goes on with what it had begun, and pays no row twice; it
  // is in every error's `idempotencyKey` while there is something to go on with. What opens the answers is in this
  // Client alone: keep it. Throws Refused; with `paid`, `query` and `priceMicro` where an answer can't be opened.
  async predict(slug, rows, { maxPrice, idempotencyKey } = {}) {
    const cap = maxPrice === undefined ? null : micro(maxPrice);
    const id = idempotencyKey ?? fresh();
    const question = JSON.stringify([slug, rows], (_, value) => (typeof value === "bigint" ? `${value}n` : value));
    const kept = this.#kept.get(id) ?? { question, made: 0, released: false };
    demand(kept.question === question, "idempotency_conflict", "You used this idempotency key for other rows.");
    kept.running ??= this.#predicted(slug, rows, cap, id, kept);
    this.#kept.set(id, kept);
    try {
      const answers = await kept.running;
      this.#kept.delete(id);
      return answers;
    } catch (error) {
      delete kept.running;
      kept.released ||= error.code === "released";
      const used = kept.released && idempotencyKey !== undefined; // the site knows the key: the next query takes another
      const begun = kept.table !== undefined && (kept.table.open !== null || kept.table.answers.length > 0);
      if (begun || used) error.idempotencyKey = id;
      else this.#kept.delete(id);
      throw error;
    }
  }

  async #predicted(slug, rows, cap, id, kept) {
    const listing = await this.listing(slug);
    kept.table ??= tableOf(valuesOf(rows, listing.features));
    kept.means ??= meansOf(listing);
    const { table } = kept;
    const most = listing.rows_per_query;
    const how = {
      most,
      key: () => (kept.made++ ? `${id}:${kept.made}` : id),
      listed: () => this.#listed(slug, kept.means),
      priced: (count) => this.#priced(slug, count, cap, paidOf(table)),
    };
    const left = table.values.length - table.answers.length;
    if (table.open === null && left > most) await this.#tried(() => this.#affordable(listing, left, cap, paidOf(table)));
    while (table.answers.length < table.values.length) {
      await this.#tried(() => this.#desk.next(table, how), kept);
    }
    const answers = table.answers.map((answer) => record(answer, listing.reading));
    return Object.assign(answers, { priceMicro: String(paidOf(table)), queries: table.paid.map(({ query }) => query) });
  }

  // The listing as it is now, if rows mean the same in it and its nodes are those that are known.
  async #listed(slug, means) {
    const listing = await this.#desk.listing(slug);
    demand(listing.status === "open", "listing_closed", "This model is not on sale.");
    demand(meansOf(listing) === means, "listing_changed", "The model takes or answers something else now. These rows were not charged; begin again.");
    await this.#pins.ready;
    const { how, prints } = await trusted(listing.nodes, this.#pins);
    if (how === "first") {
      console.warn(`FLAI: these nodes are trusted from now on, on the site's word: ${prints.join(", ")}. Compare them with what their operators publish.`);
    }
    guarded(listing, this.#thresholds, this.#agreed);
    return listing;
  }

  #limit(slug, rows, cap, paid) {
    return cap === null ? this.#seen.get(slug) * BigInt(rows) : cap - paid;
  }

  async #priced(slug, rows, cap, paid) {
    const { price_micro: price, quote } = await this.#desk.quote(slug, rows);
    const limit = this.#limit(slug, rows, cap, paid);
    demand(BigInt(price) <= limit, "price_changed", dear(rows, price, limit));
    return { price, quote };
  }

  // Of several queries none is paid unless all are within the limit: with more rows the price of one only falls.
  async #affordable({ slug, rows_per_query: most, price_micro: each }, rows, cap, paid) {
    const { price_micro: price, paid_from: from } = await this.#desk.quote(slug, most);
    const limit = this.#limit(slug, rows, cap, paid);
    const first = from === "plan" ? BigInt(each) * BigInt(most) : BigInt(price);
    const all = (first * BigInt(rows) + BigInt(most) - 1n) / BigInt(most);
    demand(all <= limit, "price_changed", dear(rows, `up to ${all}`, limit));
  }

  // `work` until it answers or the time is up. What was sent may have arrived: the same query goes out again.
  async #tried(work, { table } = {}) {
    const end = Date.now() + this.#retryMs;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const open = table?.open ?? null;
        if (error instanceof Refused) {
          if (open && !error.paid && !pending(open, error)) table.open = null; // it was not taken
          throw this.#told(error);
        }
        if (!(error instanceof Unsure)) throw error;
        if (open) open.lost = true;
        const wait = 1000 * (error.retryAfterS ?? PAUSE_S);
        if (Date.now() + wait > end) throw unanswered(this.#url, error, open);
        await pause(wait);
      }
    }
  }

  #told(error) {
    const { facts, code } = error;
    if (code === "insufficient_balance" && facts?.top_up) error.message += ` Add money: ${new URL(facts.top_up, this.#url)}`;
    if (error.paid) error.message += " You have paid for these rows.";
    if (code === "released") error.message += " You were not charged.";
    return error;
  }
}

const dear = (rows, price, limit) =>
  `These ${rows} rows cost ${price} micro-units, more than the ${limit} that you allow. Nothing was sent.`;

const unanswered = (url, { code, detail, status, retryAfterS }, open) => {
  const what = detail || `${url} does not answer.`;
  const when = retryAfterS ? ` Try again in ${retryAfterS} s.` : "";
  const again = open ? " Call again with the error's idempotencyKey: it is the same query, which can't be paid twice." : " Nothing was sent.";
  return new Refused(code ?? "unreachable", `${what}${when}${again}`, { status, retryAfterS });
};
