const MICRO = 1_000_000;

/** Micro-credits as credits, in the reader's language; small amounts keep their digits. */
export function credits(micro: number, language: string): string {
  const value = micro / MICRO;
  const digits = Math.abs(value) >= 1 ? 2 : 6;
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

export function dateTime(iso: string, language: string): string {
  return new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "medium" }).format(new Date(iso));
}

export function bytes(size: number, language: string): string {
  const units = ["B", "kB", "MB", "GB"] as const;
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${new Intl.NumberFormat(language, { maximumFractionDigits: 1 }).format(value)} ${units[unit]}`;
}
