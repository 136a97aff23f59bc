// Many rows by a CSV file: read, checked, sealed and, when they are answered, written to a file again,
// all in this page. Only sealed rows are sent, in one query; where the nodes take fewer rows, in several.

import { NOTHING_PAID, api, askLower, compare, dollars, shortfall, wallet } from "./asking.js";
import { BadTable, check, parse, textOf, write } from "./csv.js";
import { Unsure, pending, tableOf } from "./mpc/desk.js";
import { valueOf } from "./mpc/encoding.js";
import { cells, columns, complaint } from "./mpc/tables.js";
import { Refused } from "./mpc/wire.js";

const WRONG_SHOWN = 20;

export const manyRows = (form, features, reading) => {
  const part = (name) => document.getElementById(`many-${name}`);
  const { next } = api(form, features);
  const priceMicro = BigInt(form.dataset.priceMicro);
  const most = Number(form.dataset.rowsMax);

  // {name, header, separator, rows: [{line, cells}], values, answers, open}: `open` is the query whose end is not
  // known, which is sent again and never made anew, or that was paid and is not opened yet, which is fetched again.
  // Who goes on without its answers leaves null for each of its rows.
  let table = null;
  let busy = false;
  let file = ""; // the address of what can be saved

  const announce = (text) => {
    document.getElementById("announce").textContent = text;
  };

  const say = (text, link = null) => {
    const [words, more] = part("said").children;
    words.textContent = text;
    more.hidden = !link;
    if (link) Object.assign(more.firstElementChild, { textContent: link.text, href: link.href, target: link.target ?? "" });
    part("said").hidden = !text;
  };

  const left = () => table.values.length - table.answers.length;
  const opened = () => table.answers.filter((answer) => answer !== null).length;
  const rowsOf = (count) => `${count} row${count === 1 ? "" : "s"}`;
  const unopened = () => (table.open?.paid ? table.open.upload.ticket.shape[0] : 0); // paid, of the query under way

  const offer = () => {
    part("skip").hidden = !unopened();
    if (unopened()) {
      part("pay").textContent = `Open the answers to ${rowsOf(unopened())} that you have paid`;
      return;
    }
    const most = dollars(priceMicro * BigInt(left()));
    const price = form.dataset.falling ? `at most ${most}` : most; // it falls with the rows of the month
    const rows = rowsOf(left());
    part("pay").textContent = table.answers.length ? `Pay ${price} and go on with ${rows}` : `Pay ${price} and predict ${rows}`;
    part("pay").hidden = left() === 0;
  };

  // ---- the file --------------------------------------------------------------------------------

  const save = () => {
    URL.revokeObjectURL(file);
    const own = columns(reading);
    const records = table.answers.map((answer, i) => [...table.rows[i].cells, ...(answer ? cells(answer, reading) : own.map(() => ""))]);
    const text = write([[...table.header, ...own], ...records], table.separator);
    file = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const link = part("save");
    link.href = file;
    link.download = table.name.replace(/(\.csv)?$/i, "-answers.csv");
    link.hidden = opened() === 0;
    link.textContent = left() ? `Save the ${opened()} answers so far (CSV)` : "Save the answers (CSV)";
  };

  const showWrong = (wrong) => {
    part("wrong").hidden = wrong.length === 0;
    part("wrong-rows").replaceChildren(
      ...wrong.slice(0, WRONG_SHOWN).map(({ line, column, text }) => {
        const row = document.createElement("tr");
        for (const cell of [line, column || "—", text]) row.insertCell().textContent = cell;
        return row;
      }),
    );
    part("wrong-more").textContent = wrong.length > WRONG_SHOWN ? `And ${wrong.length - WRONG_SHOWN} more.` : "";
  };

  const reset = () => {
    table = null;
    say("");
    showWrong([]);
    for (const name of ["ready", "progress", "save"]) part(name).hidden = true;
  };

  const take = async (chosen) => {
    if (busy || table?.open) return;
    reset();
    try {
      const read = parse(await textOf(chosen));
      const { rows, wrong } = check(read, features, { complaint, valueOf });
      showWrong(wrong);
      if (wrong.length) {
        const count = wrong.length === 1 ? "One value is" : `${wrong.length} values are`;
        say(`${count} missing or out of range in ${chosen.name}. Nothing was sent, nothing is charged. Mend the file and choose it again.`);
        return;
      }
      table = { ...read, name: chosen.name, ...tableOf(rows) };
    } catch (error) {
      if (!(error instanceof BadTable)) throw error;
      say(`${error.message} Nothing was sent.`);
      return;
    }
    const queries = Math.ceil(table.values.length / most);
    const extra = table.header.length - features.length;
    part("what").textContent =
      `${table.values.length} row${table.values.length === 1 ? "" : "s"}, every value within its range${queries > 1 ? `; sent as ${queries} queries of ${most} rows at most` : ""}${queries === 1 && table.values.length > 1 ? "; asked and paid as one query" : ""}.` +
      (extra ? ` ${extra} further column${extra > 1 ? "s" : ""} stay${extra > 1 ? "" : "s"} here and in your file of answers.` : "");
    offer();
    part("ready").hidden = false;
    announce(part("what").textContent);
  };

  // ---- asking ----------------------------------------------------------------------------------

  // A query's rows are answered together: while it is under way the bar says only that.
  const show = (words, { ended = false } = {}) => {
    const done = opened();
    Object.assign(part("bar"), { max: table.values.length, value: table.answers.length });
    if (!ended && table.answers.length === 0) part("bar").removeAttribute("value");
    part("doing").textContent = `${done} of ${table.values.length} rows answered. ${words}`;
    part("progress").hidden = false;
  };
  const STAGES = { sealed: "Sealed; on their way.", held: "The price is held; they wait for their turn.", running: "The nodes compute." };
  const stage = (state) => STAGES[state] && show(STAGES[state]);
  const painted = () => new Promise((done) => window.requestAnimationFrame(() => window.setTimeout(done)));

  const run = async () => {
    say("");
    const paid = unopened(); // to open them is all that was asked for: the others have a price
    while (left()) {
      if (table.open === null) {
        const rows = Math.min(left(), most);
        show(`${rowsOf(rows)} ${rows === 1 ? "is" : "are"} split and sealed in this page.`);
        await painted();
      } else if (unopened()) show("The answer that you have paid is fetched again.");
      await next(table, { reading, most, show: stage });
      save();
      if (paid && left()) {
        show("The others are not asked yet.", { ended: true });
        announce(part("doing").textContent);
        return;
      }
    }
    const skipped = table.values.length - opened();
    show(skipped ? `The ${rowsOf(skipped)} without an answer here are paid too.` : "All of them are paid and opened in this page.", { ended: true });
    announce(part("doing").textContent);
  };

  const failed = (error) => {
    const { code, message, facts, detail } = error;
    const refused = error instanceof Refused;
    const kept = opened() ? ` The ${opened()} answers so far are yours.` : "";
    const again = "Keep this page open, and go on: it is the same query, which can't be paid twice.";
    if (unopened()) {
      const why = refused ? message : detail || "The site did not answer.";
      say(`${why} You have paid for ${rowsOf(unopened())}, whose answers only this page can open: keep it open and fetch them again, which costs nothing.${kept}`);
    } else if (pending(table.open, error)) {
      say(`${refused ? message : detail || "The site did not answer."} ${again}${refused ? " If you were signed out, sign in in another tab first." : ""}${kept}`);
    } else if (!refused) {
      if (table.open) table.open.lost = true;
      say(table.open ? `${detail || "The site did not answer."} ${again}${kept}` : `The site did not answer. Try again in a moment.${kept}`);
    } else if (code === "insufficient_balance") {
      table.open = null;
      say(`Your balance is short by ${shortfall(facts.short_micro)}. ${table.answers.length ? "The rows left were not charged." : NOTHING_PAID}${kept}`, wallet);
    } else if (code === "threshold_too_low") {
      table.open = null;
      say(`${message}${kept}`);
      askLower(error.lower, (accepted) => {
        if (accepted) say("");
        part("pay").focus();
      });
    } else {
      table.open = null; // it was not taken
      const money = code === "released" ? " These rows were not charged." : "";
      say(`${message}${money}${kept}`, code === "other_nodes" ? compare : null);
    }
    show("Stopped.", { ended: true });
  };

  part("pay").addEventListener("click", async () => {
    if (busy || table === null) return;
    busy = true;
    part("pay").disabled = part("file").disabled = true;
    try {
      await run();
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof Unsure)) throw error;
      failed(error);
    } finally {
      busy = false;
      part("pay").disabled = false;
      part("file").disabled = table.open !== null;
      offer();
    }
  });

  // Their rows stay paid, and are not asked again.
  part("skip").addEventListener("click", () => {
    if (busy || !unopened()) return;
    table.answers.push(...Array(unopened()).fill(null));
    table.open = null;
    part("file").disabled = false;
    say("These rows have no answers in your file. What you paid, and the receipts, are in your wallet.");
    save();
    show(left() ? "Stopped." : "The others are opened in this page.", { ended: true });
    offer();
  });

  part("file").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files[0]);
    target.value = ""; // the same file, mended, can be chosen again
  });
  const zone = part("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  }
  const blank = URL.createObjectURL(new Blob([write([features.map(({ name }) => name)])], { type: "text/csv" }));
  Object.assign(part("blank"), { href: blank, download: `${form.dataset.listing}.csv` });
  window.addEventListener("beforeunload", (event) => {
    if (busy || table?.open) event.preventDefault();
  });
  part("section").hidden = false;
};
