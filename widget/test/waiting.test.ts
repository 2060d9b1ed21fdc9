import assert from "node:assert/strict";
import { test } from "node:test";
import { backoff, retryAfter } from "../src/waiting";

const NOW = Date.UTC(2026, 10, 21, 12);

test("waits double up to a minute and are spread from nothing to all of it", () => {
  const longest = [1, 2, 3, 4, 5, 6, 7, 50, 5_000].map((failures) => backoff(failures, () => 1));
  assert.deepEqual(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60].map((seconds) => seconds * 1_000));
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

test("Retry-After is read as seconds and as a date, and kept in bounds", () => {
  assert.equal(retryAfter("120", NOW), 120_000);
  assert.equal(retryAfter(" 0 ", NOW), 0);
  assert.equal(retryAfter("Sat, 21 Nov 2026 12:00:30 GMT", NOW), 30_000);
  assert.equal(retryAfter("Sat, 21 Nov 2026 11:00:00 GMT", NOW), 0);
  assert.equal(retryAfter("99999999999999999999", NOW), 3_600_000);
});

test("a Retry-After that says neither is none", () => {
  for (const header of [null, "", "soon", "-5", "1.5", "2026-11-21"]) {
    assert.equal(retryAfter(header, NOW), undefined, String(header));
  }
});
