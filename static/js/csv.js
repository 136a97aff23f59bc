// Tables as text (RFC 4180), read, checked and written in the page.

const BYTES_MAX = 20_000_000;
export const ROWS_MAX = 10_000;
const SEPARATORS = [",", ";", "\t"];

export class BadTable extends Error {}

// The file's text. Throws BadTable for one that is too large or not UTF-8.
export const textOf = async (file) => {
  if (file.size > BYTES_MAX) throw new BadTable(`The file has more than ${BYTES_MAX / 1e6} MB.`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new BadTable("The file is not UTF-8 text. Save it as “CSV UTF-8”.");
  }
};

// {header, rows: [{line, cells}], separator}: `line` is where the row begins, counted from 1. Empty
// lines are skipped. Throws BadTable for a quote that never ends.
export const parse = (text) => {
  const first = text.slice(0, text.search(/[\r\n]|$/));
  const count = (mark) => first.split(mark).length;
  const separator = SEPARATORS.reduce((best, mark) => (count(mark) > count(best) ? mark : best));
  const records = [];
  let [line, begins, cells, cell, quoted, started] = [1, 1, [], "", false, false];
  const endCell = () => {
    cells.push(cell);
    [cell, started] = ["", false];
  };
  const endRecord = () => {
    endCell();
    if (cells.length > 1 || cells[0].trim() !== "") records.push({ line: begins, cells });
    cells = [];
  };
  for (let i = 0; i < text.length; i += 1) {
    const mark = text[i];
    const ends = mark === "\n" || (mark === "\r" && text[i + 1] !== "\n");
    if (ends) line += 1;
    if (quoted) {
      if (mark !== '"') cell += mark;
      else if (text[i + 1] === '"') {
        cell += '"';
        i += 1;
      } else quoted = false;
    } else if (mark === '"' && !started) [quoted, started] = [true, true];
    else if (mark === separator) endCell();
    else if (ends) {
      endRecord();
      begins = line;
    } else if (mark !== "\r") {
      cell += mark;
      started = true;
    }
  }
  if (quoted) throw new BadTable(`The quotation mark in the row at line ${begins} is not closed.`);
  if (cell !== "" || cells.length) endRecord();
  const [header, ...rows] = records;
  return { header: header?.cells ?? [], rows, separator };
};

// {rows: [[numbers and level names in the features' order]], wrong: [{line, column, text}]}: columns that the
// model doesn't ask for are left alone. `complaint` judges a cell of a feature, `valueOf` says what it is.
// Throws BadTable for what concerns the whole table.
export const check = ({ header, rows }, features, { complaint, valueOf }) => {
  const names = header.map((name) => name.trim());
  const missing = features.filter(({ name }) => !names.includes(name)).map(({ name }) => name);
  if (missing.length) throw new BadTable(`Missing column${missing.length > 1 ? "s" : ""}: ${missing.join(", ")}.`);
  const twice = features.filter(({ name }) => names.indexOf(name) !== names.lastIndexOf(name));
  if (twice.length) throw new BadTable(`The column “${twice[0].name}” is there twice.`);
  if (!rows.length) throw new BadTable("The table has a header, but no rows.");
  if (rows.length > ROWS_MAX) throw new BadTable(`The table has ${rows.length} rows; ${ROWS_MAX} at most go at once.`);
  const places = features.map(({ name }) => names.indexOf(name));
  const wrong = [];
  const values = rows.map(({ line, cells }) => {
    if (cells.length !== names.length) {
      wrong.push({ line, column: "", text: `Has ${cells.length} cells, the header has ${names.length}.` });
      return null;
    }
    return features.map((feature, i) => {
      const cell = cells[places[i]].trim();
      const text = complaint(cell, feature);
      if (text) wrong.push({ line, column: feature.name, text });
      return valueOf(cell, feature);
    });
  });
  return { rows: values, wrong };
};

const quoted = (separator) => (cell) => (/["\r\n]/.test(cell) || cell.includes(separator) ? `"${cell.replaceAll('"', '""')}"` : cell);

export const write = (records, separator = ",") =>
  records.map((cells) => `${cells.map(String).map(quoted(separator)).join(separator)}\r\n`).join("");
