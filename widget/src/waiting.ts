/** How long to wait before another try. All times are milliseconds. */

const FIRST = 1_000;
const LONGEST = 60_000;
const LONGEST_ASKED = 3_600_000;

/**
 * A random wait below 1 s, 2 s, 4 s … and at most 60 s ("full jitter"): after an outage the
 * visitors of a site come back spread out, not at once. `random` is in [0, 1).
 */
export function backoff(failures: number, random: () => number = Math.random): number {
  return random() * Math.min(LONGEST, FIRST * 2 ** Math.max(0, failures - 1));
}

/**
 * The wait that a `Retry-After` header asks for, in seconds or as a date (RFC 9110 §10.2.3), at
 * most an hour; `undefined` if there is none or it says neither.
 */
export function retryAfter(header: string | null, now: number): number | undefined {
  if (header === null) return undefined;
  const value = header.trim();
  // Only dates begin with a letter; `Date.parse` would take many a number for a year.
  const wait = /^[0-9]+$/.test(value)
    ? Number(value) * 1_000
    : /^[A-Z]/i.test(value)
      ? Date.parse(value) - now
      : NaN;
  return Number.isNaN(wait) ? undefined : Math.min(LONGEST_ASKED, Math.max(0, wait));
}
