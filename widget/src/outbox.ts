/**
 * What a visitor wrote and the server has not yet confirmed: a plain list, oldest first, that can be
 * stored as it is. There is no state "sending": whoever finds a message here, after a reload too,
 * sends it again, and the server knows it by its id. Nothing is dropped: a message leaves when the
 * server has it, or stays with the reason why the server will not take it.
 */

export interface Waiting {
  /** Made once for each message written, never for each try; what makes a retry a no-op. */
  readonly id: string;
  readonly text: string;
  /** Set before the first try: a retry goes to the same conversation, where it is known. */
  readonly to?: string | undefined;
  /** Set when the server said that it will never take this message: its problem. */
  readonly refusal?: string;
}

export type Outbox = readonly Waiting[];

/** A message to be sent; `undefined` when there is nothing in it. */
export function written(text: string): Waiting | undefined {
  text = text.trim();
  return text ? { id: newId(), text } : undefined;
}

/** The message to send now: the oldest that was not refused. */
export function next(outbox: Outbox): Waiting | undefined {
  return outbox.find((one) => !one.refusal);
}

/** With that message changed; without it when the server has it, or the visitor has taken it back. */
export function changed(outbox: Outbox, id: string | null | undefined, change?: Partial<Waiting>): Outbox {
  return outbox.flatMap((one) => (one.id !== id ? one : change ? { ...one, ...change } : []));
}

/**
 * A UUID. `crypto.randomUUID` is missing on pages that came over plain HTTP; addresses of blobs, which end with one (File API,
 * "generate a new blob URL"), are not.
 */
export function newId(): string {
  return URL.createObjectURL(new Blob()).slice(-36);
}
