/**
 * Reads server-sent events from the bytes of a `fetch` response, which unlike `EventSource` can
 * send a token in a header.
 *
 * The rules are those of the HTML standard (§9.2.6) for what our server sends: lines that end with LF or
 * CRLF, one line of data an event. Ids need no reading, because a message has its number in it.
 */

/**
 * Takes the next bytes, cut anywhere, and gives type and data of the events that they complete. An event
 * counts when its blank line has arrived: what a broken connection left unfinished is never given.
 */
export function eventReader(): (bytes: Uint8Array) => [type: string, data: string][] {
  const decoder = new TextDecoder();
  let text = "";
  return (bytes) => {
    text += decoder.decode(bytes, { stream: true });
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop()!;
    return blocks.flatMap((block) => {
      const [, type, data] = /^event: ?(.*)(?:[^]*\n)data: ?(.*)/m.exec(block) ?? [];
      return data ? [[type!, data]] : [];
    });
  };
}
