/**
 * What is remembered about the visitor: in memory, and in IndexedDB from the moment of consent on.
 *
 * One record in one database for each site. A change is a transaction, so that tabs do not lose each
 * other's messages. Where storage is denied everything stays in memory, until the page goes.
 */

import type { Outbox } from "./outbox";

export interface Contact {
  readonly name?: string;
  readonly email?: string;
}

export interface Kept {
  /** The visitor secret: who has it is this visitor. */
  readonly visitor?: string | undefined;
  /** The version of the notice that was agreed to. */
  readonly consent?: string | undefined;
  /** Name and address that the server does not know yet. */
  readonly contact?: Contact | undefined;
  /** How far the visitor has read, and in which conversation. */
  readonly seen?: { readonly id: string; readonly seq: number };
  readonly outbox: Outbox;
}

const NOTHING: Kept = { outbox: [] };

export function keeper(name: string) {
  /** Whether anything may be stored: the visitor agreed, here or on an earlier page. */
  let stores = false;
  const it = {
    /** As last read or changed from here. */
    kept: NOTHING,

    /**
     * Changes what any tab left last; without a change, reads it. Before consent nothing is made by
     * looking, and nothing is stored; `agreed` says that from now on it is.
     */
    async change(change: (kept: Kept) => Partial<Kept> = () => ({}), agreed = stores): Promise<Kept> {
      let changed: Kept | undefined;
      try {
        const opening = indexedDB.open(name);
        opening.onupgradeneeded = () => {
          // Taking back the upgrade takes back the database as well.
          if (agreed) opening.result.createObjectStore("kept");
          else opening.transaction!.abort();
        };
        const database = await done(opening);
        stores = true;
        const store = database.transaction("kept", "readwrite").objectStore("kept");
        const reading = done<Kept | undefined>(store.get(0));
        database.close(); // takes effect after the transaction
        const kept = { ...it.kept, ...(await reading) };
        changed = { ...kept, ...change(kept) };
        await done(store.put(changed, 0));
      } catch {} // denied, or nothing is there and nothing may be
      return (it.kept = changed ?? { ...it.kept, ...change(it.kept) });
    },

    /** Nothing is left, on the disk or in memory. */
    forget(): void {
      it.kept = NOTHING;
      stores = false;
      try {
        indexedDB.deleteDatabase(name);
      } catch {} // denied: there is nothing
    },
  };
  return it;
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
