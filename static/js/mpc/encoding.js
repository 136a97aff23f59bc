// Columns with levels, and what a model takes for them: the twin of apps/protocol/encoding.py.

const NO_YES = ["no", "yes"];
const SPELLINGS = new Map([["false", 0], ["0", 0], ["true", 1], ["1", 1]]);

// The levels of a feature, in order; of a number none.
export const levelsOf = ({ type, levels }) => (type === "boolean" ? NO_YES : levels ?? []);

// How many columns a model takes for these features.
export const width = (features) => features.reduce((sum, one) => sum + Math.max(1, levelsOf(one).length - 1), 0);

// Texts of one level have one such form: "1.0", as tables write a whole number, is "1".
const alike = (text) => text.trim().normalize("NFC").replace(/^(-?[0-9]+)\.0*$/, "$1");

// Which of the levels a text says, -1 for none of them. No and yes may be spelled as True, false, 1, 0.
export const placeOf = (levels, text) => {
  const form = alike(text);
  if (levels.join() !== NO_YES.join()) return levels.findIndex((level) => alike(level) === form);
  const said = form.toLowerCase();
  return SPELLINGS.get(said) ?? NO_YES.indexOf(said);
};

// A text that is right for its feature as a row has it: a number, or the name of a level.
export const valueOf = (text, feature) => {
  const levels = levelsOf(feature);
  return levels.length ? levels[placeOf(levels, text)] : Number(text);
};

// A row in the order of its features, as the model takes it: the numbers, then of each category a column for each
// level but the first. NaN for what is no level.
export const encode = (row, features) => {
  const numbers = row.filter((_, i) => !levelsOf(features[i]).length);
  const columns = features.flatMap((feature, i) => {
    const levels = levelsOf(feature);
    const place = levels.length ? placeOf(levels, String(row[i])) : 0;
    return levels.slice(1).map((_, at) => (place < 0 ? NaN : Number(place === at + 1)));
  });
  return [...numbers, ...columns];
};
