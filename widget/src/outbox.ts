/**
 * What a visitor wrote and the server has not yet confirmed.
 *
 * An outbox is a plain list, oldest first, that can be stored as it is; every function returns a
 * new one. There is no state "sending": whoever finds a message here, after a reload too, sends it
 * again, and the server knows it by its `clientMessageId`. Nothing is dropped: a message leaves
 * when the server has it, or stays with the reason why the server will not take it.
 */

import { backoff } from "./waiting";

export interface QueuedMessage {
  /** Made once for each message written, never for each try; what makes a retry a no-op. */
  readonly clientMessageId: string;
  readonly text: string;
  /** When it was written, by the visitor's clock; the server's sequence decides the order. */
  readonly writtenAt: number;
  readonly failures: number;
  /** Set after a failed try: not again before `since + wait`. */
  readonly pause?: { readonly since: number; readonly wait: number };
  /** Set when the server said that it will never take this message. */
  readonly refusal?: string;
}

export type Outbox = readonly QueuedMessage[];

/** Unicode characters (not UTF-16 units) of one message; the server's limit as well. */
export const LONGEST_TEXT = 4_000;
/** Messages that may wait; beyond it the visitor's text stays in the field. */
export const MOST_WAITING = 100;

export type Unqueued = "empty" | "too-long" | "too-many";

/**
 * The outbox with one more message, or why the text stays where it was written. The text is
 * brought to the form the server keeps: NFC, without control characters other than line ends and
 * tabs, and with U+FFFD for half of a surrogate pair.
 */
export function queue(
  outbox: Outbox,
  written: string,
  now: number,
  clientMessageId: string = newMessageId(),
): Outbox | Unqueued {
  const text = written
    .replace(/\r\n?/g, "\n")
    .replace(/\p{Surrogate}/gu, "\ufffd")
    .replace(/[^\P{Control}\n\t]/gu, "")
    .normalize("NFC")
    .trim();
  if (!text) return "empty";
  if (text.length > LONGEST_TEXT && [...text].length > LONGEST_TEXT) return "too-long";
  if (outbox.length >= MOST_WAITING) return "too-many";
  return [...outbox, { clientMessageId, text, writtenAt: now, failures: 0 }];
}

/**
 * The message to send now, or the milliseconds until there is one, or `undefined` if none waits.
 * Messages go in the order they were written, so one that pauses holds back those behind it; one
 * that was refused does not.
 */
export function next(outbox: Outbox, now: number): QueuedMessage | number | undefined {
  const message = outbox.find((one) => one.refusal === undefined);
  if (!message?.pause) return message;
  const { since, wait } = message.pause;
  const left = since + wait - now;
  // A clock that was put back must not turn a second's pause into a day's.
  return left <= 0 || now < since ? message : left;
}

/** The server has the message: by its answer or by its own event, whichever comes first. */
export function stored(outbox: Outbox, clientMessageId: string): Outbox {
  return outbox.filter((one) => one.clientMessageId !== clientMessageId);
}

/** The try failed and may succeed later; `asked` is the wait that the server asked for. */
export function failed(
  outbox: Outbox,
  clientMessageId: string,
  now: number,
  asked?: number,
  random: () => number = Math.random,
): Outbox {
  return changed(outbox, clientMessageId, (one) => {
    const failures = one.failures + 1;
    const wait = Math.max(asked ?? 0, backoff(failures, random));
    return { ...one, failures, pause: { since: now, wait } };
  });
}

/** The server will never take the message as it is; `refusal` is its problem type. */
export function refused(outbox: Outbox, clientMessageId: string, refusal: string): Outbox {
  return changed(outbox, clientMessageId, (one) => ({ ...one, refusal }));
}

/**
 * A UUID version 4. `randomUUID` is missing on pages that came over plain HTTP, where
 * `getRandomValues` still is.
 */
export function newMessageId(
  source: Partial<Crypto> & Pick<Crypto, "getRandomValues"> = crypto,
): string {
  if (source.randomUUID) return source.randomUUID();
  const bytes = source.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function changed(
  outbox: Outbox,
  clientMessageId: string,
  change: (one: QueuedMessage) => QueuedMessage,
): Outbox {
  return outbox.map((one) => (one.clientMessageId === clientMessageId ? change(one) : one));
}
