/** What is on the screen. It shows what it is given, and tells what the visitor does. */

import type { Asked, Conversation, Site } from "./api";
import { link, linked, make } from "./dom";
import type { Contact } from "./kept";
import { SMALL, STYLE } from "./style";
import * as words from "./words";

/** `by` is who wrote it, "" the visitor; `edit` takes it back to where it was written. */
export type Line = readonly [key: string, by: string, text: string, under: string, edit?: "" | (() => void) | undefined];

export interface Shown {
  readonly site: Site | undefined;
  readonly conversation: Conversation | undefined;
  readonly lines: readonly Line[];
  readonly note: string;
  readonly unread: number;
  /** What was said before the chat was opened is there: from now on new lines are read out. */
  readonly live: boolean;
}

export interface Question {
  readonly text: string;
  readonly link?: string | null;
  /** The button's text; or digits, a button each. */
  readonly yes: string;
  readonly fields?: Readonly<Record<"name" | "email", Asked>>;
  /** Does not take the focus from where the visitor writes. */
  readonly quiet?: boolean;
}

export type Given = Contact & { readonly answer: string };

/** Further down than any thread is long, in pixels. */
const FAR = 1e9;

export function view(
  host: HTMLElement,
  launcher: HTMLButtonElement,
  send: () => void,
  typed: () => void,
  end: () => void,
  erase: () => void,
  toggled: (open: boolean) => void,
) {
  const style = new CSSStyleSheet();
  style.replaceSync(STYLE);
  const root = host.shadowRoot!;
  root.adoptedStyleSheets.push(style);

  const label = launcher.ariaLabel;
  const shownLines = new Map<string, HTMLElement>();

  const badge = make("b");
  const title = make("h2");
  const status = make("p");
  const log = make("div", { role: "log", tabIndex: 0, ariaLabel: label });
  const note = make("p", { role: "status" });
  const asked = make("div");
  const ending = make("button", { onclick: end });
  const submit = (event: Event) => {
    event.preventDefault();
    send();
  };
  const field = make("textarea", {
    rows: 1,
    maxLength: 4_000,
    placeholder: words.write,
    ariaLabel: words.write,
    oninput: typed,
    onkeydown(event) {
      // Enter that ends the composing of a word (Japanese, Chinese) sends nothing. Safari has ended it by then, and says
      // so by the code alone: 229, in every browser.
      if (event.keyCode === 13 && !event.shiftKey) submit(event);
    },
  });
  const dialog = make(
    "dialog",
    {
      onkeydown({ key }) {
        if (key === "Escape") dialog.close();
      },
      // However it was closed; the focus is back on the launcher by then.
      onclose: () => turned(false),
    },
    make(
      "div",
      { dir: words.direction, lang: words.language },
      make(
        "div",
        { className: "top" },
        make("div", {}, title, status),
        make("button", { ariaLabel: words.close, textContent: "×", onclick: () => dialog.close() }),
      ),
      log,
      note,
      asked,
      make(
        "form",
        { onsubmit: submit },
        field,
        make("button", { className: "go", ariaLabel: words.send, textContent: "↑" }),
      ),
      make("div", { className: "foot" }, ending, make("button", { textContent: words.erase, onclick: erase })),
    ),
  );
  launcher.append(badge);
  root.append(dialog);

  function open(): void {
    if (dialog.open) return;
    dialog[matchMedia(SMALL).matches ? "showModal" : "show"]();
    log.scrollTop = FAR;
    field.focus();
    turned(true);
  }

  function turned(open: boolean): void {
    launcher.ariaExpanded = `${open}`;
    toggled(open);
  }

  function show(shown: Shown): void {
    const { site, conversation, lines, unread } = shown;
    if (site) {
      const { accent, on_accent, scheme, side } = site.theme;
      const schemes = scheme.replace("auto", "light dark");
      host.style.cssText = `--fp-accent:${accent};--fp-on:${on_accent};--fp-scheme:${schemes}`;
      host.dataset["side"] = side;
      title.textContent = site.title;
      status.textContent = conversation?.agent ?? site.hours?.text ?? "";
    }
    dialog.ariaLabel = site?.title ?? label;
    ending.textContent = conversation?.status === "open" ? words.end : "";
    badge.textContent = unread ? `${unread}` : "";
    launcher.ariaLabel = unread ? `${label} (${unread})` : label;
    if (note.textContent !== shown.note) note.textContent = shown.note;

    // Lines that stay are not touched: they would be read out again.
    log.ariaLive = shown.live ? "polite" : "off";
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 90;
    lines.forEach(([key, by, text, under, edit], at) => {
      let line = shownLines.get(key);
      if (!line) {
        line = make("div", {}, make("p", { dir: "auto" }, ...linked(text)), make("small"));
        line.className = by ? "" : "me";
        shownLines.set(key, line);
      }
      const below = line.lastChild as HTMLElement;
      if (below.firstChild?.textContent !== under) {
        below.replaceChildren(under);
        if (edit) below.append(" ", make("button", { textContent: words.edit, onclick: edit }));
      }
      if (log.children[at] !== line) log.insertBefore(line, log.children[at] ?? null);
    });
    while (log.children.length > lines.length) log.lastChild!.remove();
    if (atEnd) log.scrollTop = FAR;
  }

  /**
   * Asks below the lines, one thing at a time; gives what is in the fields and, as `answer`, the
   * button; nothing when the visitor does not want to.
   */
  function ask({ text, link: href, yes, fields, quiet }: Question): Promise<Given | undefined> {
    return new Promise((resolve) => {
      const settle = (given?: Given) => {
        form.remove();
        resolve(given);
        field.focus();
      };
      const form = make(
        "form",
        {
          ariaLabel: text,
          onsubmit(event: SubmitEvent) {
            event.preventDefault();
            settle(Object.fromEntries(new FormData(form, event.submitter)) as unknown as Given);
          },
        },
        make("p", { dir: "auto" }, ...linked(text)),
        ...(href ? [link(href, words.privacy)] : []),
        ...Object.entries(fields ?? {}).flatMap(([name, wanted]) => {
          const required = wanted === "required";
          const asks = name === "name" ? words.name : words.email;
          return wanted === "off"
            ? []
            : make(
                "label",
                {},
                required ? `${asks} *` : asks,
                make("input", { name, type: name, autocomplete: name as AutoFill, required }),
              );
        }),
        ...(+yes ? [...yes] : [yes]).map((textContent) =>
          make("button", {
            className: +yes ? "" : "go",
            textContent,
            name: "answer",
            value: textContent,
          }),
        ),
        make("button", { type: "button", textContent: words.cancel, onclick: () => settle() }),
      );
      asked.replaceChildren(form);
      log.scrollTop = FAR;
      if (!quiet) form.querySelector<HTMLElement>("input,button")!.focus();
    });
  }

  return { ask, dialog, field, open, show };
}
