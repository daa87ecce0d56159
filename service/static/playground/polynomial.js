// Points from text, and polynomials through them by least squares, with their bands. No network.

export const MOST_POINTS = 200;
export const HIGHEST_DEGREE = 12;
const MOST_CHARACTERS = 100_000;
const LARGEST = 1e100; // its square, and far more, is still a number
const NO_TEXT = /[\x00-\x08\x0e-\x1f\x7f]/; // as in training

// What an index is called, as in training.
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const THOUSANDS = /^[+-]?[1-9]\d{0,2}(,\d{3})+$/;
// Lines that start with #, but not with a spreadsheet's #DIV/0! or #N/A in place of a number.
const isComment = (line) => line.startsWith("#") && !/^#([^\s,;]*[!?]|N\/?[ADV]) *[,;\t|]/.test(line);
const INDEX_NAMES = new Set(["", "i", "n", "id", "idx", "index", "nr", "no", "row", "#", "unnamed: 0"]);

/** Whether it is text at all, and not far more than the points that this page takes. */
export const isTable = (text) => text.length <= MOST_CHARACTERS && !NO_TEXT.test(text);

/**
 * Pairs from a CSV, and how it was read: a header or none, commas, semicolons, tabs or spaces
 * between the cells. With semicolons, tabs or spaces a comma is a decimal mark. Of more than two
 * columns those named x and y, or the last two after one that counts the rows, as in training.
 * Throws an Error that says what is wrong and where.
 */
export function parse(text) {
  if (NO_TEXT.test(text)) throw new Error("This is not text: save the table as CSV UTF-8.");
  if (text.length > MOST_CHARACTERS) throw many("This is more text than so few need");
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/).map((line) => line.replace(/^ +| +$/g, ""));
  if (/^"?sep=.?"?$/i.test(lines[0])) lines[0] = ""; // Excel's
  const numbered = lines.map((line, i) => ({ line, number: i + 1 })).filter(({ line }) => !isComment(line) && /[^\s;,]/.test(line));
  if (!numbered.length) throw new Error("There are no points yet: paste two columns, x and y.");
  const between = [";", "\t"].find((mark) => numbered.every(({ line }) => line.includes(mark)))
    ?? (numbered.every(({ line }) => line.includes(",") && !/\d\s+[-+\d]/.test(line)) ? "," : /\s+/);
  const toNumber = (cell) => {
    const plain = (between === "," ? cell : cell.replace(",", ".")).replace(/[−–]/, "-");
    return NUMBER.test(plain) ? Number(plain) : NaN;
  };
  const split = (line) => (typeof between === "string" ? line : line.trim()).split(between).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
  const all = numbered.map((each) => ({ ...each, cells: split(each.line) }));
  // Separators at the end of lines are no cells, where nothing ever comes after them.
  const width = Math.max(...all.map(({ cells }) => cells.findLastIndex((cell) => cell !== "") + 1));
  for (const each of all) each.cells = each.cells.slice(0, width);
  const refused = ({ line, number }) => new Error(`Line ${number} is no pair of numbers: “${line.slice(0, 40)}”. Write x and y with a comma between.`);
  const named = !all[0].cells.some((cell) => Number.isFinite(toNumber(cell)));
  const names = named ? all[0].cells : [];
  const body = named ? all.slice(1) : all;
  const odd = body.find(({ cells }) => cells.length !== all[0].cells.length);
  if (odd) throw new Error(`Line ${odd.number} has ${odd.cells.length} cells, but line ${all[0].number} has ${all[0].cells.length}. Write x and y with a comma between.`);
  if (width < 2) throw refused(all[0]);
  const chosen = columns(names, body, width, typeof between === "string" && between !== ",");
  const points = body.map((row) => {
    const pair = chosen.map((column) => toNumber(row.cells[column]));
    if (!pair.every(Number.isFinite)) throw refused(row);
    if (pair.some((value) => Math.abs(value) > LARGEST)) throw new Error(`Line ${row.number} has a number over ${LARGEST}: too large to be fitted here.`);
    return pair;
  });
  if (points.length > MOST_POINTS) throw many(`There are ${points.length} points`);
  if (new Set(points.map(([x]) => x)).size < 3) throw new Error("There must be at least three different x.");
  const read = body.flatMap(({ cells }) => chosen.map((column) => cells[column]));
  const [commas, dots] = [",", "."].map((mark) => read.filter((cell) => cell.includes(mark)));
  const comma = commas.length > 0;
  if (comma && dots.length) throw new Error(`Some numbers have a point (${dots[0]}), others a comma (${commas[0]}): write all with a decimal point.`);
  if (comma && commas.every((cell) => THOUSANDS.test(cell))) {
    throw new Error(`${commas[0]} may be ${commas[0].replaceAll(",", "")} or ${commas[0].replace(",", ".")}: write it without the comma, or with a decimal point.`);
  }
  const of = width > 2 ? ` of ${width}` : "";
  const said = `${points.length} points: x is column ${chosen[0] + 1}${of}, y is column ${chosen[1] + 1}${of}`
    + `${named ? `; line ${all[0].number} names the columns` : ""}${comma ? "; commas are decimal marks" : ""}.`;
  return { points: points.sort((a, b) => a[0] - b[0]), said };
}

const many = (what) => new Error(`${what}; this page takes ${MOST_POINTS} points. Fit more with: python -m training curve --data FILE.csv`);

/** Which columns are x and y. ``clear``: what stands between the cells can't be part of a number. */
function columns(names, body, width, clear) {
  const lowered = names.map((name) => name.toLowerCase());
  const once = (name) => lowered.indexOf(name) >= 0 && lowered.indexOf(name) === lowered.lastIndexOf(name);
  if (once("x") && once("y")) return [lowered.indexOf("x"), lowered.indexOf("y")];
  if (width === 2) return [0, 1];
  const counts = [0, 1].some((first) => body.every(({ cells }, i) => cells[0] === String(first + i)));
  if (width === 3 && counts && (!names.length || INDEX_NAMES.has(lowered[0]))) {
    if (names.length || clear || body.some(({ cells }) => cells.some((cell) => !/^\d+$/.test(cell)))) return [1, 2];
    throw new Error(`Line ${body[0].number}, “${body[0].line}”, can be read in two ways: ${body[0].cells[0]} may count the rows, or be `
      + "a part of the number after it. Name the columns in a first line, such as n,x,y.");
  }
  throw new Error(`There are ${width} columns, and which are x and y is not clear: keep two, or name them x and y in the first line.`);
}

/** T_0 … T_m at t (order 0), or their first derivatives in t (order 1). */
function chebyshev(t, degree, order) {
  const value = [1, t];
  const slope = [0, 1];
  for (let k = 2; k <= degree; k += 1) {
    value.push(2 * t * value[k - 1] - value[k - 2]);
    slope.push(2 * value[k - 1] + 2 * t * slope[k - 1] - slope[k - 2]);
  }
  return (order ? slope : value).slice(0, degree + 1);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

/**
 * The polynomial of that degree through points [[x, y], …], at least degree + 1 different x.
 * ``at(x, order)`` gives {value, error}: f or f′, and its standard error, NaN without points to spare.
 */
export function fit(points, degree) {
  const [low, high] = [points[0][0], points.at(-1)[0]];
  const [centre, half] = [(low + high) / 2, (high - low) / 2];
  const basis = points.map(([x]) => chebyshev((x - centre) / half, degree, 0));
  const y = points.map((point) => point[1]);
  // QR by Gram and Schmidt, each column twice: then it is as good as Householder's.
  const columns = [];
  const upper = Array.from({ length: degree + 1 }, () => Array(degree + 1).fill(0));
  for (let j = 0; j <= degree; j += 1) {
    let column = basis.map((row) => row[j]);
    for (let pass = 0; pass < 2; pass += 1) {
      columns.forEach((other, i) => {
        const share = dot(other, column);
        upper[i][j] += share;
        column = column.map((value, n) => value - share * other[n]);
      });
    }
    upper[j][j] = Math.sqrt(dot(column, column));
    columns.push(column.map((value) => value / upper[j][j]));
  }
  const projected = columns.map((column) => dot(column, y));
  const coefficients = Array(degree + 1).fill(0);
  for (let j = degree; j >= 0; j -= 1) {
    const known = upper[j].reduce((sum, value, k) => (k > j ? sum + value * coefficients[k] : sum), 0);
    coefficients[j] = (projected[j] - known) / upper[j][j];
  }
  const residuals = basis.map((row, i) => y[i] - dot(row, coefficients));
  const squares = dot(residuals, residuals);
  const leverage = points.map((_, i) => columns.reduce((sum, column) => sum + column[i] ** 2, 0));
  const deleted = residuals.map((r, i) => (r / Math.max(1 - leverage[i], 1e-12)) ** 2);
  const freedom = points.length - degree - 1;
  const noise = freedom > 0 ? Math.sqrt(squares / freedom) : NaN;
  return {
    degree, freedom, noise,
    mse: squares / points.length,
    leaveOneOut: mean(deleted),
    deleted,
    at(x, order) {
      const row = chebyshev((x - centre) / half, degree, order).map((value) => value / half ** order);
      // Standard error s·‖R⁻ᵀ row‖, by forward substitution.
      const solved = [];
      for (let j = 0; j <= degree; j += 1) {
        solved.push((row[j] - solved.reduce((sum, value, i) => sum + value * upper[i][j], 0)) / upper[j][j]);
      }
      return { value: dot(row, coefficients), error: noise * Math.sqrt(dot(solved, solved)) };
    },
  };
}

/** Fits of every degree that leaves a point to spare, up to the highest. */
export function fits(points) {
  const distinct = new Set(points.map(([x]) => x)).size;
  const most = Math.max(1, Math.min(HIGHEST_DEGREE, distinct - 2));
  return Array.from({ length: most + 1 }, (_, degree) => fit(points, degree));
}

/** The lowest degree whose leave-one-out error is within one standard error of the smallest, as in training. */
export function choose(all) {
  const errors = all.map((each) => each.leaveOneOut);
  const best = all[errors.indexOf(Math.min(...errors))];
  return all.find(({ degree, deleted }) => {
    const worse = deleted.map((square, i) => square - best.deleted[i]);
    const middle = mean(worse);
    const spread = Math.sqrt(worse.reduce((sum, each) => sum + (each - middle) ** 2, 0) / (worse.length - 1));
    return degree >= best.degree || middle <= spread / Math.sqrt(worse.length);
  }).degree;
}

/**
 * Half width of an interval in standard errors, of Student's t: with T = √ν·tan θ the density is
 * proportional to cos^(ν−1) θ, which Simpson's rule sums.
 */
export function quantile(level, freedom) {
  const area = (end) => {
    const pieces = 1000;
    let sum = 0;
    for (let i = 0; i <= pieces; i += 1) {
      const weight = i === 0 || i === pieces ? 1 : i % 2 ? 4 : 2;
      sum += weight * Math.cos((end * i) / pieces) ** (freedom - 1);
    }
    return (sum * end) / pieces;
  };
  const whole = area(Math.PI / 2);
  let [low, high] = [0, Math.PI / 2];
  for (let i = 0; i < 50; i += 1) {
    const middle = (low + high) / 2;
    if (area(middle) / whole < level) low = middle;
    else high = middle;
  }
  return Math.sqrt(freedom) * Math.tan(low);
}
