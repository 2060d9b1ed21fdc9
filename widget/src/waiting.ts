/** How long to wait before another try. All times are milliseconds. */

/**
 * None without a failure, then a random wait below 1 s, 2 s, 4 s … and at most 64 s ("full jitter"): after an outage the
 * visitors of a site come back spread out, not at once. `random` is in [0, 1).
 */
export function backoff(failures: number, random = Math.random): number {
  return failures && random() * 500 * 2 ** Math.min(7, failures);
}

/** The wait that `Retry-After` asks for: whole seconds from our server; else 0. */
export function retryAfter({ headers }: Response): number {
  return (+headers.get("Retry-After")! || 0) * 1_000;
}
