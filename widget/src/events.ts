/**
 * Reads server-sent events from the bytes of a `fetch` response.
 *
 * The rules are those of the HTML standard (§9.2.6, "Interpreting an event stream"). The browser's
 * own `EventSource` cannot send a token in a header, and a token has no place in an address.
 */

/** One event. `id` is the last id the stream has given so far, its own or an earlier one. */
export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

/** Characters that one event may have; a stream beyond it is not from our server. */
export const LARGEST_EVENT = 1_048_576;

const LINE_END = /\r\n?|\n/g;

export class EventStreamReader {
  /** What to send as `Last-Event-ID` when the stream is opened again. */
  lastEventId: string;
  /** Milliseconds that the server asks to wait before opening the stream again, if it did. */
  retry: number | undefined;

  #decoder = new TextDecoder();
  #line = "";
  #afterCarriageReturn = false;
  #id: string;
  #type = "";
  #data: string[] = [];
  #size = 0;

  /** `lastEventId` is where an earlier stream stopped. */
  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  /**
   * Takes the next bytes, cut anywhere, and gives the events that they complete. An event counts
   * when its blank line has arrived: what a broken connection left unfinished is never given.
   * Throws `RangeError` when an event is larger than `LARGEST_EVENT`.
   */
  read(bytes: Uint8Array): ServerEvent[] {
    const text = this.#decoder.decode(bytes, { stream: true });
    const events: ServerEvent[] = [];
    if (!text) return events;
    // A line that ended with CR at the end of the last bytes may go on with LF in these.
    let start = this.#afterCarriageReturn && text[0] === "\n" ? 1 : 0;
    this.#afterCarriageReturn = text.endsWith("\r");
    LINE_END.lastIndex = start;
    for (let end = LINE_END.exec(text); end; end = LINE_END.exec(text)) {
      const line = this.#line + text.slice(start, end.index);
      this.#line = "";
      start = LINE_END.lastIndex;
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    this.#line += text.slice(start);
    this.#limit(this.#line.length);
    return events;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the server's sign of life
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (name === "data") {
      this.#limit(value.length);
      this.#size += value.length + 1;
      this.#data.push(value);
    } else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  #dispatch(events: ServerEvent[]): void {
    this.lastEventId = this.#id;
    if (this.#data.length) {
      const data = this.#data.join("\n");
      events.push({ id: this.#id, type: this.#type || "message", data });
    }
    this.#type = "";
    this.#data = [];
    this.#size = 0;
  }

  #limit(more: number): void {
    if (this.#size + more > LARGEST_EVENT) throw new RangeError("an event is too large");
  }
}
