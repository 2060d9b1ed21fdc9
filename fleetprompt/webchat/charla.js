(function (chat) {
  "use strict";
  // One label stands for the star, as on the platform.
  const listed = (origin) =>
    chat.origins.some(
      (one) =>
        one === origin ||
        (one.includes("://*.") && origin.replace(/:\/\/[^.]+\./, "://*.") === one),
    );
  if (!listed(location.origin) || document.getElementById("charla-consent")) return;
  const kept = "charla-consent:" + chat.version;

  function load() {
    window[chat.object] = chat.settings;
    const script = document.createElement("script");
    script.async = true;
    script.referrerPolicy = "origin";
    script.src = chat.script;
    document.head.append(script);
  }

  function agreedBefore() {
    try {
      return localStorage.getItem(kept) !== null;
    } catch {
      return false;
    }
  }

  function button(text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  }

  function ask() {
    const box = document.createElement("div");
    box.id = "charla-consent";
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", chat.title);
    const shown = { position: "fixed", bottom: "16px", right: "16px", zIndex: "2147483000" };
    Object.assign(box.style, shown);
    const open = button(chat.title, () => {
      open.remove();
      const words = document.createElement("p");
      words.textContent = chat.text;
      const yes = button(chat.agree, () => {
        try {
          localStorage.setItem(kept, new Date().toISOString());
        } catch {
          // Asked again on the next page.
        }
        box.remove();
        load();
      });
      box.append(words);
      if (chat.link) {
        const link = document.createElement("a");
        link.href = chat.link;
        link.rel = "noopener noreferrer";
        link.textContent = chat.link;
        box.append(link);
      }
      const no = button(chat.close, () => {
        box.replaceChildren(open);
        open.focus();
      });
      box.append(yes, no);
      Object.assign(box.style, { background: "Canvas", color: "CanvasText", padding: "12px", maxWidth: "320px" });
      yes.focus();
    });
    Object.assign(open.style, { background: chat.accent, color: chat.onAccent, padding: "12px", border: "0" });
    box.append(open);
    document.body.append(box);
  }

  const start = () => (agreedBefore() ? load() : ask());
  if (document.body) start();
  else document.addEventListener("DOMContentLoaded", start);
})
