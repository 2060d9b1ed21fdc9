import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { solve } from "../src/work";

for (const bits of [0, 1, 7, 8, 11]) {
  test(`the work of ${bits} bits holds for another implementation of SHA-256`, async () => {
    const answer = await solve("nonce.1-2_3", bits);
    assert.match(answer, /^nonce\.1-2_3:\d+$/);
    const hash = createHash("sha256").update(answer).digest();
    assert.ok(hash.readUInt32BE(0) < 2 ** (32 - bits));
  });
}
