import assert from "node:assert/strict";
import { test } from "node:test";
import { changed, newId, next, written, type Outbox } from "../src/outbox";

const outbox: Outbox = [
  { id: "a", text: "first" },
  { id: "b", text: "second" },
];

test("nothing is written where there are only spaces", () => {
  assert.equal(written(" \n\t "), undefined);
  assert.equal(written(" hello \n")?.text, "hello");
});

test("trap 2: the same text written twice is two messages", () => {
  assert.notEqual(written("ok")?.id, written("ok")?.id);
});

test("messages go in the order they were written; one that was refused holds back none", () => {
  assert.equal(next(outbox)?.id, "a");
  assert.equal(next(changed(outbox, "a", { refusal: "invalid" }))?.id, "b");
  assert.equal(next([]), undefined);
});

test("trap 1: a retry is the same message to the same conversation", () => {
  const [tried] = changed(outbox, "a", { to: "conversation" });
  assert.deepEqual(tried, { id: "a", text: "first", to: "conversation" });
});

test("a message leaves when the server has it, whoever says so and however often", () => {
  const left = changed(changed(outbox, "a"), "a");
  assert.deepEqual(left, [outbox[1]]);
  assert.deepEqual(changed(left, null), left);
});

test("trap 16: ids are UUIDs without crypto.randomUUID, and never the same", () => {
  const ids = Array.from({ length: 500 }, newId);
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(new Set(ids).size, ids.length);
});
