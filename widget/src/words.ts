/** What the chat says. The build puts each language in this file's place. */
export * from "./strings/en";
