// Where predictions are bought: quote, send, wait, open. What the site's page and flai-client.js share;
// no row comes near it but to be sealed.

import { makeBatch, openAnswers } from "./buyer.js";
import { Refused, demand, hex } from "./wire.js";

const DEADLINE_MS = 90_000;
const WAIT_S = 2; // what the server may hold an answer back, so that we see its state in between
const PAUSE_MS = 500;
const USED_UP = "buyer_rows_used_up";

export const fresh = () => hex(crypto.getRandomValues(new Uint8Array(16)));
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
export const over = (state) => state === "settled" || state === "released";

// Might this query still be answered, so that its key must be kept? One that was taken, or that was sent
// without an answer and now meets a closed door: the session may have ended (401), or begun anew in another tab
// (what Django's check of forms then says). What was paid has been answered.
const signedOut = ({ status, code }) => status === 401 || (status === 403 && code === "permission_denied");
export const pending = (open, error) => error.paid !== true && (open?.id != null || (open?.lost === true && signedOut(error)));

// A table that is being asked: `answers` of its first rows, and the query whose end is not known, or whose answer
// could not be opened, if any. `paid`: {query, priceMicro} of each that was paid, opened or not.
export const tableOf = (values) => ({ values, answers: [], paid: [], open: null });

// What may have happened, although nobody could say so: it is asked again.
export class Unsure extends TypeError {}

// The API under `base`. `headers` and `credentials` say who asks; `asker`: who to a model's nodes, as makeBatch has it.
export const desk = ({ base, headers = {}, credentials, asker = null }) => {
  // Throws Refused for what the server says no to, and Unsure for what it can't say: 5xx, 429 (but of a buyer's rows
  // of the day: they are back tomorrow), no whole answer.
  const call = async (path, options = {}) => {
    const how = { credentials, cache: "no-store", ...options, headers: { ...headers, ...options.headers } };
    const answer = await fetch(base + path, how).catch((error) => {
      throw new Unsure(error.message);
    });
    const body = await answer.json().catch(() => null);
    const { status, ok } = answer;
    const full = status === 429 && body?.code !== USED_UP;
    if (status >= 500 || full || (ok && body === null)) {
      const after = Number(answer.headers.get("Retry-After") ?? NaN);
      const facts = { status, code: body?.code, detail: body?.detail ?? "", retryAfterS: Number.isFinite(after) ? after : null };
      throw Object.assign(new Unsure(`The server answered ${status}.`), facts);
    }
    demand(ok, body?.code ?? "refused", body?.detail ?? "The site refused this.", { facts: body ?? {}, status });
    return body;
  };

  const post = (path, body, more = {}) =>
    call(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...more },
      body: JSON.stringify(body),
    });

  const listing = (slug) => call(`listings/${encodeURIComponent(slug)}/`);
  const quote = (slug, rows) => post(`listings/${encodeURIComponent(slug)}/quote/`, { rows });

  const send = ({ slug, upload, key, quote: token }) =>
    post(
      `listings/${encodeURIComponent(slug)}/inferences/`,
      { input: upload, max_price_micro: upload.ticket.price_micro, quote: token },
      { "Idempotency-Key": key, Prefer: `wait=${WAIT_S}` },
    );

  // The query once it has ended; what goes wrong on the way is tried again until the time is up.
  const ended = async (id, show) => {
    const end = Date.now() + DEADLINE_MS;
    for (;;) {
      try {
        const query = await call(`inferences/${id}/`, { headers: { Prefer: `wait=${WAIT_S}` } });
        if (over(query.state)) return query;
        show(query.state, id);
      } catch (error) {
        if (!(error instanceof Unsure) || Date.now() > end) throw error;
        await pause(PAUSE_MS);
      }
      if (Date.now() > end) throw new Unsure("no answer in time");
    }
  };

  // The next rows of a table, `most` of them, asked, paid and answered; the query of a call that broke off
  // first, whatever the listing says by now. `listed()` gives the listing, `priced(rows)` {price, quote}, `show`
  // hears each state. Throws Refused, with `paid`, `query` and `priceMicro` where the answer can't be opened: called
  // again it is fetched again, and nothing else is asked. Throws Unsure.
  const next = async (table, { listed, priced, reading, most = Infinity, key = fresh, show = () => {} }) => {
    if (table.open === null) {
      const found = await listed();
      const rows = table.values.slice(table.answers.length, table.answers.length + most);
      const { price, quote: token } = await priced(rows.length);
      const made = await makeBatch(found, reading ?? found.reading, rows, price, asker);
      table.open = { ...made, slug: found.slug, quote: token, key: key(), id: null };
      show("sealed");
    }
    const asked = table.open;
    let query = null;
    if (asked.id === null) {
      query = await send(asked);
      asked.id = query.id;
      show("held", query.id);
    }
    if (!over(query?.state)) query = await ended(asked.id, show);
    show(query.state, query.id);
    if (query.state === "released") {
      table.open = null;
      throw new Refused("released", `No answer: ${query.reason ?? "the nodes could not compute it."}`);
    }
    asked.paid ??= { query: query.id, priceMicro: asked.upload.ticket.price_micro }; // as was signed, whatever is said now
    if (!table.paid.includes(asked.paid)) table.paid.push(asked.paid);
    try {
      table.answers.push(...(await openAnswers(query, asked)));
    } catch (error) {
      throw error instanceof Refused ? new Refused(error.code, error.message, { paid: true, ...asked.paid }) : error;
    }
    table.open = null;
    return query;
  };

  return { call, post, listing, quote, next };
};
