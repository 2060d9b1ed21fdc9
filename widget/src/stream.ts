/**
 * Follows a conversation: its event stream, opened again where it stopped, or a long poll where a
 * proxy holds the stream back.
 */

import type { Answer, Api, Conversation, Message } from "./api";
import { eventReader } from "./events";
import { backoff, retryAfter } from "./waiting";

export type Happening =
  | { readonly type: "conversation"; readonly data: Conversation }
  | { readonly type: "message"; readonly data: Message }
  | { readonly type: "typing"; readonly data: { readonly author: string } };

export type Timer = ReturnType<typeof setTimeout> | undefined;

/** Milliseconds: without a first event a proxy is holding the stream back, … */
const FIRST_EVENT = 3_000;
/** … and without a byte (the server says something every 15 s) the connection is dead. */
const SILENCE = 45_000;
/** The least time between two polls. */
const PAUSE = 1_000;
/** What lived so long shows that the server is well again. */
const SURVIVAL = 10_000;

/**
 * Goes on until `signal` aborts. `cursor` is the number up to which everything is known; `poll` asks for what is new,
 * waits for it, says whether there was an answer, and finds out when the conversation is no more.
 */
export async function follow(
  { open, renounce }: Pick<Api, "open" | "renounce">,
  id: string,
  cursor: () => number,
  happened: (happening: Happening) => void,
  poll: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  let failures = 0;
  let polls = false;

  while (!signal.aborted) {
    if (polls) {
      polls = await poll();
      await pause(PAUSE);
      continue;
    }
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    const began = Date.now();
    let heard = began;
    let wait = 0;
    let timer: Timer = setTimeout(stop, FIRST_EVENT);
    const removed = { signal: attempt.signal };
    signal.addEventListener("abort", stop, removed);
    addEventListener("online", stop, removed); // another network: the connection is of the old one
    failures++;
    try {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": `${cursor()}` };
      const path = `events?conversation_id=${id}`;
      const response = await open(path, undefined, headers, attempt.signal);
      if (response.status === 404) await poll();
      wait = retryAfter(response);
      const read = eventReader();
      const bytes = response.body!.getReader();
      while (response.ok) {
        const { done, value } = await bytes.read();
        if (done) break;
        heard = Date.now();
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE);
        for (const [type, data] of read(value)) {
          if (type === "token") {
            renounce();
            failures = 0; // no failure: the stream goes on with a new one
          } else happened({ type, data: JSON.parse(data) } as Happening);
        }
      }
    } catch (error) {
      wait = (error as Answer).wait || 0;
      polls = attempt.signal.aborted && heard === began; // taken, and then silent
    }
    clearTimeout(timer);
    stop();
    if (heard > began + SURVIVAL) failures = 1;
    await pause(wait + backoff(failures));
  }
}

/** Waits; less when the network comes back. */
function pause(time: number): Promise<unknown> {
  return new Promise((resolve) => {
    setTimeout(resolve, time);
    addEventListener("online", resolve, { once: true });
  });
}
