/** What the chat is made of so far; the entry of the bundle. */

export * from "./events";
export * from "./outbox";
export * from "./waiting";
