/**
 * The work that the server may ask for before it takes more from here: a number such that SHA-256 of
 * `nonce:number` begins with so many zero bits. Never asked of pages that came over plain HTTP, which have no
 * `crypto.subtle`.
 */

/** More is not worked on: it would take a phone minutes. */
export const MOST_BITS = 18;
/** `nonce:number` whose hash begins with `bits` (0 to `MOST_BITS`) zero bits; made beside the page's own thread. */
export async function solve(nonce: string, bits: number): Promise<string> {
  for (let number = 0; ; number++) {
    const answer = `${nonce}:${number}`;
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(answer));
    if (new DataView(hash).getUint32(0) < 2 ** (32 - bits)) return answer;
  }
}
