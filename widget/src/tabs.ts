/** The tabs of one browser: what they tell each other, and what only one of them does. */

type Run = (signal: AbortSignal) => Promise<void>;

/** `hear` gets what the other tabs of the same site tell. */
export function tabs(name: string, hear: (told: never) => unknown) {
  const channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }) => hear(data as never);

  return {
    tell: (told: unknown) => channel.postMessage(told),

    /** Runs in one tab at a time, in the next when that one goes; until `signal` aborts. */
    lead(what: string, run: Run, signal: AbortSignal): void {
      locked(name + what, () => run(signal), { signal }).catch(() => whileVisible(run, signal));
    },

    /** Runs when it runs in no other tab; where that cannot be known, at once. */
    alone: (run: () => Promise<void>) => locked(name, run).catch(run),
  };
}

/** Locks are missing on pages that came over plain HTTP, and denied in sandboxed frames. */
async function locked(name: string, run: () => Promise<void>, options: LockOptions = {}) {
  await navigator.locks.request(name, options, run);
}

/** Without locks a tab leads while it is looked at: one stream, for one window. */
function whileVisible(run: Run, signal: AbortSignal): void {
  let turn: AbortController | undefined;
  const look = () => {
    turn?.abort();
    if (!document.hidden && !signal.aborted) void run((turn = new AbortController()).signal);
  };
  document.addEventListener("visibilitychange", look, { signal });
  signal.addEventListener("abort", look);
  look();
}
