/** Elements without markup: what strict pages allow. */

/** An element with properties (ARIA's too: `ariaLabel`) and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<Omit<HTMLElementTagNameMap[K], "style">> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Text, in which only addresses of the web become links. */
export function linked(text: string): (Node | string)[] {
  return text
    .split(/(https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)])/)
    .map((part, at) => (at % 2 ? link(part, part) : part));
}

export function link(href: string, textContent: string): HTMLElement {
  return make("a", { href, textContent, target: "_blank", rel: "noreferrer nofollow" });
}
