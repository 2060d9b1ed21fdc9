import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff, retryAfter } from "../src/waiting";

test("waits double up to about a minute and are spread from nothing to all of it", () => {
  const longest = [0, 1, 2, 3, 4, 5, 6, 7, 50, 5_000].map((failures) => backoff(failures, () => 1));
  assert.deepEqual(longest, [0, 1, 2, 4, 8, 16, 32, 64, 64, 64].map((seconds) => seconds * 1_000));
  assert.equal(backoff(9, () => 0), 0);
});

test("trap 34: 500 visitors that lost the server at once come back spread out", () => {
  const waits = Array.from({ length: 500 }, () => backoff(6));
  const perSecond = new Map<number, number>();
  for (const wait of waits) {
    const second = Math.floor(wait / 1_000);
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  assert.ok(Math.max(...perSecond.values()) < 60, "too many in one second");
  assert.ok(perSecond.size > 24, "too few seconds used");
});

test("Retry-After is whole seconds; anything else is no wait", () => {
  const asked = (value?: string) =>
    retryAfter(new Response(null, value === undefined ? {} : { headers: { "Retry-After": value } }));
  assert.equal(asked("120"), 120_000);
  for (const header of [undefined, "", "soon", "Sat, 21 Nov 2026 12:00:30 GMT"])
    assert.equal(asked(header), 0, header);
});
