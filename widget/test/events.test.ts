import assert from "node:assert/strict";
import { test } from "node:test";
import { EventStreamReader, LARGEST_EVENT, type ServerEvent } from "../src/events";

const bytes = (text: string) => new TextEncoder().encode(text);

function readWhole(text: string, reader = new EventStreamReader()): ServerEvent[] {
  return reader.read(bytes(text));
}

test("an event has its id, type and data", () => {
  assert.deepEqual(readWhole('id: 41\nevent: message\ndata: {"text":"hello"}\n\n'), [
    { id: "41", type: "message", data: '{"text":"hello"}' },
  ]);
});

test("the examples of the HTML standard read as it says", () => {
  assert.deepEqual(readWhole("data: YHOO\ndata: +2\ndata: 10\n\n"), [
    { id: "", type: "message", data: "YHOO\n+2\n10" },
  ]);
  assert.deepEqual(
    readWhole(
      ": test stream\n\ndata: first event\nid: 1\n\n" +
        "data:second event\nid\n\ndata:  third event\n\n",
    ),
    [
      { id: "1", type: "message", data: "first event" },
      { id: "", type: "message", data: "second event" },
      { id: "", type: "message", data: " third event" },
    ],
  );
  assert.deepEqual(
    readWhole("data\n\ndata\ndata\n\ndata:").map((event) => event.data),
    ["", "\n"],
  );
  const spaced = readWhole("data:test\n\ndata: test\n\n");
  assert.deepEqual(spaced.map((event) => event.data), ["test", "test"]);
});

test("wherever the bytes are cut, in lines or characters, the events are the same", () => {
  const stream =
    "\ufeffid: 1\r\nevent: reply\r\ndata: grüße 👋\r\n\r\n" +
    ": ping\n\nid: 2\rdata: a\rdata\rdata: b\r\r" +
    "retry: 250\ndata: c\n\nunknown: x\nid: 3\ndata: :d: \n\n";
  const whole = bytes(stream);
  const expected = [
    { id: "1", type: "reply", data: "grüße 👋" },
    { id: "2", type: "message", data: "a\n\nb" },
    { id: "2", type: "message", data: "c" },
    { id: "3", type: "message", data: ":d: " },
  ];
  for (let first = 0; first <= whole.length; first++) {
    for (const second of [first, first + 1, first + 2, whole.length]) {
      const reader = new EventStreamReader();
      const parts = [whole.slice(0, first), whole.slice(first, second), whole.slice(second)];
      const events = parts.flatMap((part) => reader.read(part));
      assert.deepEqual(events, expected, `cut at ${first}, ${second}`);
    }
  }
  const one = new EventStreamReader();
  const singly = [...whole].flatMap((byte) => one.read(Uint8Array.of(byte)));
  assert.deepEqual(singly, expected);
  assert.equal(one.retry, 250);
});

test("what a broken connection left unfinished is not given, nor resumed after", () => {
  const reader = new EventStreamReader();
  assert.equal(readWhole("id: 1\ndata: whole\n\nid: 2\ndata: half\n", reader).length, 1);
  assert.equal(reader.lastEventId, "1");
});

test("a stream that goes on after another keeps its last id until it gives one", () => {
  const reader = new EventStreamReader("7");
  assert.deepEqual(readWhole("data: x\n\n", reader), [{ id: "7", type: "message", data: "x" }]);
  assert.equal(reader.lastEventId, "7");
  readWhole("id: 8\n\n", reader);
  assert.equal(reader.lastEventId, "8");
});

test("an id with NUL and a retry that is no number are not taken", () => {
  const reader = new EventStreamReader("5");
  readWhole("id: 6\0\nretry: 1e3\nretry: -1\nretry:\ndata: x\n\n", reader);
  assert.equal(reader.lastEventId, "5");
  assert.equal(reader.retry, undefined);
});

test("the type holds for its own event only, and an event without data is none", () => {
  assert.deepEqual(readWhole("event: token\n\ndata: x\n\nevent: token\ndata: y\n\n"), [
    { id: "", type: "message", data: "x" },
    { id: "", type: "token", data: "y" },
  ]);
});

test("a stream without end in one line or one event is given up", () => {
  const piece = bytes("x".repeat(LARGEST_EVENT / 4));
  const line = new EventStreamReader();
  assert.throws(() => {
    for (let i = 0; i < 6; i++) line.read(piece);
  }, RangeError);
  const event = new EventStreamReader();
  const field = bytes(`data: ${"x".repeat(LARGEST_EVENT / 4)}\n`);
  assert.throws(() => {
    for (let i = 0; i < 6; i++) event.read(field);
  }, RangeError);
  const events = new EventStreamReader();
  for (let i = 0; i < 6; i++) {
    events.read(field);
    assert.equal(events.read(bytes("\n")).length, 1);
  }
});
