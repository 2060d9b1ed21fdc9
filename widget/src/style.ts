/** Where the chat fills the screen, and is modal. */
export const SMALL = "(max-width:480px),(max-height:480px)";

/**
 * How the chat looks. Colours are mixed from the scheme's own, so that text has a contrast of at least 4.5:1 in
 * light, dark and forced ones; sizes are in px, which a page's root font does not change. The tree is in `view.ts`.
 *
 * `--s` soft background · `--m` muted text · `--l` lines
 */
export const STYLE = `:host{color-scheme:var(--fp-scheme)!important;--s:color-mix(in srgb,CanvasText 8%,Canvas);--m:color-mix(in srgb,CanvasText 65%,Canvas);--l:color-mix(in srgb,CanvasText 14%,Canvas)}
b{position:absolute;top:0;inset-inline-end:0;padding:0 7px;border-radius:16px;background:#c00;color:#fff;font:13px/20px system-ui}
dialog{position:absolute;inset-block:auto 72px;inset-inline:auto 0;width:384px;height:min(620px,100dvh - 116px);padding:0;border:1px solid var(--l);border-radius:16px;overflow:auto;background:Canvas;color:CanvasText;font:15px/1.45 system-ui;box-shadow:0 4px 48px #0003}
:host([data-side=start]) dialog{inset-inline:0 auto}
dialog *{box-sizing:border-box;margin:0}
dialog button{all:unset;cursor:pointer;border-radius:16px;text-align:center}
dialog :focus-visible{outline:2px solid;outline-offset:-2px}
dialog>div{display:flex;flex-direction:column;height:100%}
.top{display:flex;align-items:center;padding:16px}
.top div{flex:1}
h2{font-size:16px}
.top button{font:24px/32px system-ui;width:32px}
[role=log]{flex:1;overflow:auto;padding:16px 16px 0}
[role=log]>*{margin-bottom:12px;padding-inline-end:48px}
[role=log] p{background:var(--s);width:fit-content;padding:8px 14px;border-radius:16px;white-space:pre-wrap;overflow-wrap:anywhere}
.me{padding-inline:48px 0;text-align:end}
.me p{margin-inline-start:auto;text-align:start}
.top,.me p,.go{background:var(--fp-accent);color:var(--fp-on)}
small,.top p,.foot,[role=status],label{font-size:13px}
small,.foot,[role=status]{color:var(--m)}
[role=status]{padding:0 16px;min-height:20px}
small button,.foot button{text-decoration:underline}
a{color:inherit}
form{display:flex;flex-wrap:wrap;gap:8px;padding:12px 16px;border-top:1px solid var(--l)}
form>*{flex:1 1 100%}
form button{flex:1;padding:9px 12px;border:1px solid var(--l)}
input,textarea{width:100%;font:16px/1.4 system-ui;color:inherit;background:0 0;border:1px solid var(--m);border-radius:16px;padding:8px 14px}
textarea{flex:1;resize:none;field-sizing:content;max-height:132px}
textarea+.go{flex:none}
::placeholder{color:var(--m)}
.foot{display:flex;justify-content:center;gap:16px;padding-bottom:12px}
b:empty,.foot :empty{display:none}
@media ${SMALL}{dialog{position:fixed;inset:0!important;min-width:100%;min-height:100%;border:0;border-radius:0}}`;
