/** Numbers as people read them. */

const UNITS = ["kB", "MB", "GB", "TB"];

export function formatCount(n) {
  return Math.round(n).toLocaleString("en");
}

/** "18.6 MB", as `optiq inspect` writes sizes. */
export function formatBytes(bytes) {
  if (bytes < 1000) {
    return `${bytes} B`;
  }
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.95 && unit < UNITS.length - 1) {
    value /= 1000; // 999.95 would be shown as 1000.0
    unit += 1;
  }
  return `${value.toFixed(1)} ${UNITS[unit]}`;
}

export function formatSeconds(seconds) {
  return seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
}

/** "135 M", "8.0 B": parameters. */
export function formatParameters(n) {
  for (const [limit, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (n >= limit) {
      return `${(n / limit).toPrecision(3)} ${unit}`;
    }
  }
  return String(n);
}
