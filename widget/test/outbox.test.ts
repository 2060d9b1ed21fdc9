import assert from "node:assert/strict";
import { test } from "node:test";
import {
  failed,
  LONGEST_TEXT,
  MOST_WAITING,
  newMessageId,
  next,
  type Outbox,
  queue,
  refused,
  stored,
} from "../src/outbox";

const NOW = 1_800_000_000_000;
const UUID4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function queued(outbox: Outbox, text: string, id?: string): Outbox {
  const result = queue(outbox, text, NOW, id);
  assert.ok(typeof result !== "string", `not queued: ${result}`);
  return result;
}

function toSend(outbox: Outbox, now = NOW): string {
  const message = next(outbox, now);
  assert.ok(typeof message === "object");
  return message.clientMessageId;
}

test("trap 2: the same text twice is two messages", () => {
  const outbox = queued(queued([], "ok"), "ok");
  assert.equal(outbox.length, 2);
  assert.notEqual(outbox[0]?.clientMessageId, outbox[1]?.clientMessageId);
});

test("trap 1: a try that failed keeps its id, so that the server knows the retry", () => {
  let outbox = queued([], "hello");
  const id = toSend(outbox);
  for (let i = 0; i < 3; i++) outbox = failed(outbox, id, NOW, 0, () => 0);
  assert.equal(toSend(outbox), id);
  assert.equal(outbox[0]?.failures, 3);
  assert.deepEqual(stored(outbox, id), []);
});

test("trap 6: an outbox stored as JSON and read after a reload sends the same, in order", () => {
  let outbox = queued(queued([], "one", "a"), "two", "b");
  outbox = failed(outbox, "a", NOW, undefined, () => 0.5);
  let reloaded = JSON.parse(JSON.stringify(outbox)) as Outbox;
  assert.deepEqual(reloaded, outbox);
  const later = NOW + 60_000;
  const order: string[] = [];
  while (reloaded.length) {
    order.push(toSend(reloaded, later));
    reloaded = stored(reloaded, order.at(-1)!);
  }
  assert.deepEqual(order, ["a", "b"]);
});

test("the server's event may come before its answer", () => {
  const outbox = queued(queued([], "one", "a"), "two", "b");
  const heard = stored(outbox, "a");
  assert.deepEqual(stored(heard, "a"), heard);
  assert.deepEqual(failed(heard, "a", NOW), heard);
  assert.equal(toSend(heard), "b");
});

test("a pause holds back the messages behind it, a refusal does not", () => {
  let outbox = queued(queued([], "one", "a"), "two", "b");
  outbox = failed(outbox, "a", NOW, undefined, () => 0.5);
  assert.equal(next(outbox, NOW), 500);
  assert.equal(next(outbox, NOW + 499), 1);
  assert.equal(toSend(outbox, NOW + 500), "a");
  outbox = refused(outbox, "a", "idempotency-mismatch");
  assert.equal(toSend(outbox), "b");
  assert.equal(outbox[0]?.text, "one");
  outbox = stored(outbox, "b");
  assert.equal(next(outbox, NOW), undefined);
  assert.equal(outbox.length, 1);
});

test("trap 43: a limit that says when keeps the text until then", () => {
  const outbox = failed(queued([], "hello", "a"), "a", NOW, 30_000, () => 0);
  assert.equal(next(outbox, NOW), 30_000);
  assert.equal(toSend(outbox, NOW + 30_000), "a");
});

test("a server that asks for no wait is not asked at once for ever", () => {
  let outbox = queued([], "hello", "a");
  for (let i = 0; i < 4; i++) outbox = failed(outbox, "a", NOW, 0, () => 0.5);
  assert.equal(next(outbox, NOW), 4_000);
});

test("trap 50: a clock that is put back does not hold a message back", () => {
  const outbox = failed(queued([], "hello", "a"), "a", NOW, 30_000);
  assert.equal(toSend(outbox, NOW - 86_400_000), "a");
});

test("nothing that is done to an outbox changes the one before", () => {
  const before = Object.freeze(queued([], "hello", "a").map((one) => Object.freeze(one)));
  const copy = structuredClone(before);
  queue(before, "x", NOW);
  failed(before, "a", NOW);
  refused(before, "a", "invalid");
  stored(before, "a");
  assert.deepEqual(before, copy);
});

test("trap 44: text is brought to the form that the server keeps", () => {
  const text = (written: string) => queued([], written)[0]?.text;
  assert.equal(text("  a\r\nb\rc\t d  "), "a\nb\nc\t d");
  assert.equal(text("a\0b\u0007c\u0085d"), "abcd");
  assert.equal(text("A\u030angstro\u0308m"), "\u00c5ngstr\u00f6m");
  assert.equal(text("half \ud83d of 👋"), "half \ufffd of 👋");
  assert.equal(text("مرحبا 👩‍👩‍👧"), "مرحبا 👩‍👩‍👧");
  assert.equal(queue([], " \n\0 ", NOW), "empty");
});

test("the limit counts characters, not UTF-16 units", () => {
  assert.equal(typeof queue([], "👋".repeat(LONGEST_TEXT), NOW), "object");
  assert.equal(queue([], "👋".repeat(LONGEST_TEXT + 1), NOW), "too-long");
  assert.equal(queue([], "a".repeat(LONGEST_TEXT + 1), NOW), "too-long");
});

test("an outbox has a most; what is written then stays where it was written", () => {
  let outbox: Outbox = [];
  for (let i = 0; i < MOST_WAITING; i++) outbox = queued(outbox, String(i));
  assert.equal(queue(outbox, "one more", NOW), "too-many");
});

test("trap 16: ids are UUIDs of version 4 with and without randomUUID", () => {
  const withoutUuid = { getRandomValues: crypto.getRandomValues.bind(crypto) };
  const ids = Array.from({ length: 500 }, () => [newMessageId(), newMessageId(withoutUuid)]).flat();
  for (const id of ids) assert.match(id, UUID4);
  assert.equal(new Set(ids).size, ids.length);
  const ones = { getRandomValues: <T>(into: T) => (into as Uint8Array).fill(255) as T };
  assert.equal(newMessageId(ones as Crypto), "ffffffff-ffff-4fff-bfff-ffffffffffff");
});
