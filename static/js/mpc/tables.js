// What a row may hold, and an answer's columns: the twin of workers/client/tables.py.

import { levelsOf, placeOf } from "./encoding.js";

const DECIMALS = 6;
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?$/;

// What is wrong with a value of a feature, in words; "" where nothing is.
export const complaint = (text, feature) => {
  const levels = levelsOf(feature);
  const [low, high] = [feature.min ?? undefined, feature.max ?? undefined];
  if (text === "") return "Missing.";
  if (levels.length) return placeOf(levels, text) < 0 ? `Must be one of: ${levels.join(", ")}.` : "";
  if (text.includes(",")) return "Write a point before the decimals, no comma.";
  if (!NUMBER.test(text) || !Number.isFinite(Number(text))) return "Not a number.";
  if (low !== undefined && Number(text) < Number(low)) return `Must be at least ${low}.`;
  if (high !== undefined && Number(text) > Number(high)) return `Must be at most ${high}.`;
  return "";
};

export const chance = ({ kind }) => kind === "binary" || kind === "classes";

// The columns of a table of answers.
export const columns = ({ kind, resolution, name, names }) => {
  if (resolution === "label") return ["label"];
  const own = { binary: ["probability"], survival: ["relative_hazard"], classes: names.map((one) => `probability_${one}`) };
  const plain = own[kind] ?? [name];
  if (resolution === "band") return plain.flatMap((one) => [`${one}_low`, `${one}_high`]);
  return resolution === "logit" && kind === "binary" ? [...plain, "logit"] : plain;
};

// An answer's values in these columns: numbers, or the label's name.
const values = (answer, { kind, names }) => {
  if ("label" in answer) return [names[answer.label]];
  const own = (answer.values ?? answer.bands).flat();
  return "scores" in answer && kind === "binary" ? [...own, answer.scores[0]] : own;
};

// {column: value} of an answer.
export const record = (answer, reading) => {
  const own = values(answer, reading);
  return Object.fromEntries(columns(reading).map((column, i) => [column, own[i]]));
};

// The same as texts, for a file.
export const cells = (answer, reading) => {
  const digits = { band: 1, rounded: 2, logit: DECIMALS }[reading.resolution];
  return values(answer, reading).map((x) => (typeof x === "number" && chance(reading) ? x.toFixed(digits) : String(x)));
};
