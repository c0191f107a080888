// What lines and areas are made of: scales, ticks and SVG paths. Pure.

/** A function from values to places. */
export function scale(from, to, start, end) {
  const width = to - from || 1;
  return (value) => start + ((value - from) / width) * (end - start);
}

/** Round values that divide a range into about so many parts. @returns {number[]} */
export function ticks(low, high, about) {
  const rough = (high - low || Math.abs(high) || 1) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) ?? rough;
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) values.push(Number((n * step).toPrecision(12)));
  return values;
}

const DAY_MS = 86_400_000;
const TIME_STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 14400].map((minutes) => minutes * 60_000);

/** Instants in UTC that divide a time into about so many parts, with their texts. @returns {{ms: number, text: string}[]} */
export function timeTicks(from_ms, to_ms, about) {
  const rough = (to_ms - from_ms) / about;
  const step = TIME_STEPS_MS.find((size) => size >= rough) ?? 10 * DAY_MS;
  const found = [];
  for (let ms = Math.ceil(from_ms / step) * step; ms <= to_ms; ms += step) {
    const text = new Date(ms).toISOString();
    found.push({ ms, text: step >= DAY_MS || ms % DAY_MS === 0 ? text.slice(5, 10) : text.slice(11, 16) });
  }
  return found;
}

const place = (number) => Number(number.toFixed(1));

/** A path through points. @param {[number, number][]} points */
export function linePath(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${place(x)} ${place(y)}`).join("");
}

/** A path that keeps each value until the next one. @param {[number, number][]} points */
export function stepPath(points) {
  return points.map(([x, y], index) => (index ? `H${place(x)}V${place(y)}` : `M${place(x)} ${place(y)}`)).join("");
}

/** The area between two lines with the same places. @param {[number, number][]} top @param {[number, number][]} bottom */
export function areaPath(top, bottom) {
  return top.length ? `${linePath(top)}${linePath([...bottom].reverse()).replace("M", "L")}Z` : "";
}

/** A value's course as a small line: scaled to its own range, flat if it does not move. */
export function sparkPath(values, width, height) {
  if (values.length < 2) return "";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = scale(0, values.length - 1, 1, width - 1);
  const y = high === low ? () => height / 2 : scale(low, high, height - 2, 2);
  return linePath(values.map((value, index) => [x(index), y(value)]));
}
