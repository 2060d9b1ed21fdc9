import assert from "node:assert/strict";
import { test } from "node:test";
import { eventReader } from "../src/events";

const bytes = (text: string) => new TextEncoder().encode(text);

test("an event has its type and data", () => {
  assert.deepEqual(eventReader()(bytes('event: message\nid: 41\ndata: {"text":"hello"}\n\n')), [
    ["message", '{"text":"hello"}'],
  ]);
});

test("comments, and events without data, are none", () => {
  assert.deepEqual(eventReader()(bytes(": ping\n\nevent: typing\n\nretry: 5\n\n")), []);
});

test("lines may end with CRLF", () => {
  const stream = "event: token\r\ndata: {}\r\n\r\nevent: typing\r\ndata: {}\r\n\r\n";
  assert.deepEqual(eventReader()(bytes(stream)), [
    ["token", "{}"],
    ["typing", "{}"],
  ]);
});

test("a stream cut at every byte gives the same events", () => {
  const stream =
    ': hi\n\nevent: conversation\ndata: {"id":"1"}\n\n' +
    'event: message\nid: 7\ndata: {"text":"Grüße 👋 مرحبا"}\r\n\r\nevent: token\ndata: {}\n\n';
  const whole = eventReader()(bytes(stream));
  assert.equal(whole.length, 3);
  for (let size = 1; size < 9; size++) {
    const read = eventReader();
    const all = bytes(stream);
    const events = [];
    for (let at = 0; at < all.length; at += size) events.push(...read(all.slice(at, at + size)));
    assert.deepEqual(events, whole, `${size} bytes at a time`);
  }
});

test("what a broken connection left unfinished is never given", () => {
  assert.deepEqual(eventReader()(bytes('event: message\ndata: {"text":"half"}\n')), []);
});
