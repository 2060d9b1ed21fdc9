/**
 * What a page loads: a button, and what it takes to get the chat once somebody wants it.
 *
 * Nothing is asked of the server, read or stored before that, with one exception: who consented on
 * an earlier page has a database of ours, and is shown what came in meanwhile.
 *
 * The page drives it with `FleetPromptChat.push([what, token])`, where `what` is `open`, `close`,
 * `reset` (forget the visitor on this machine) or `identify` (with a token that the site's own
 * server signed); an array of that name does until the loader is there. Events bubble to the document.
 */

import type { App, mount } from "./chat";

/** Which languages there are, and the end of their files' names; put in by the build. */
declare const LANGUAGES: string;
declare const BUILD: string;

type Call = readonly [what: keyof App, token?: string];

const TAG = "fleetprompt-chat";
// What is important in a shadow tree wins over the page's own rules, important or not.
const STYLE = `:host{all:initial!important;position:fixed!important;inset-block:auto 20px!important;inset-inline:auto 20px!important}:host([data-side=start]){inset-inline:20px auto!important}:host>button{all:unset;padding:18px 16px;border-radius:50%;cursor:pointer;background:var(--fp-accent);color:var(--fp-on);box-shadow:0 4px 16px #0004;forced-color-adjust:none}:host>button:focus-visible{outline:auto}:host>button:before{content:"";display:block;padding:10px 12px;border-radius:9px 9px 9px 0;background:currentColor}`;

const page = document.documentElement;
const { dataset, src } = document.currentScript as HTMLScriptElement;
const { site, side, lang, label = "Chat", accent = "#1f5eff", on = "#fff" } = dataset;
const { api = new URL(src).origin } = dataset;

class Host extends HTMLElement {
  connectedCallback() {
    // In the top layer no stacking order and no transformed ancestor of the page can hide it.
    this.popover = "manual";
    this.showPopover?.();
  }

  /** A page that replaces everything (Astro, React) does not lose the chat. */
  disconnectedCallback() {
    setTimeout(() => this.isConnected || page.append(this));
  }
}

// The snippet may be there twice, and there may be two sites' on a page.
const id = TAG + site;
if (!document.getElementById(id)) {
  if (!customElements.get(TAG)) customElements.define(TAG, Host);
  const chat = document.createElement(TAG);
  const launcher = document.createElement("button");
  const style = new CSSStyleSheet();
  const root = chat.attachShadow({ mode: "open" });
  let app: Promise<App> | undefined;
  const call = async (what: keyof App, token?: string) => {
    const languages = String(["", lang, page.lang, navigator.language, "en"]);
    const language = languages.match(`,(${LANGUAGES})\\b`)![1];
    app ??= import(`${api}/widget/v1/chat.${language}.${BUILD}.js`).then(
      (module: { mount: typeof mount }) => module.mount(chat, launcher, api, site!),
    );
    return (await app)[what](token!);
  };
  style.replaceSync(STYLE);
  root.adoptedStyleSheets = [style];
  root.append(launcher);
  chat.id = id;
  chat.dataset["side"] = side!;
  chat.role = "region";
  chat.ariaLabel = launcher.ariaLabel = label;
  chat.style.cssText = `--fp-accent:${accent};--fp-on:${on}`;
  // Without the chat (a policy, a broken network) there is still the plain page.
  launcher.onclick = () => call("toggle").catch(() => open(`${api}/chat/${site}`));
  // Beside the body, not in it: Turbo replaces the body, and keeps copies of it.
  page.append(chat);

  const global = window as { FleetPromptChat?: Call[] };
  const push = (waiting: Call) => call(...waiting);
  global.FleetPromptChat?.map?.(push);
  global.FleetPromptChat = { push } as unknown as Call[];
  (async () => (await indexedDB.databases()).some(({ name }) => name == id) && call("resume"))().catch(
    () => {}, // storage is denied: the visitor begins as a new one
  );
}
