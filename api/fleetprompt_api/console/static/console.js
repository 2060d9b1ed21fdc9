// Renews the regions marked data-live, and the rows of those marked data-rows, from the page's own
// address: every ten seconds, and where the page names events, as soon as one comes. Every page works
// without this.
"use strict";

const EVERY = 10_000; // milliseconds
const TYPING_HOLDS = 6_000;
const TYPING_EVERY = 3_000;

const edited = (region) =>
  [...region.querySelectorAll("input, textarea, select")].some(
    (field) => field.value !== field.defaultValue || field.checked !== field.defaultChecked,
  );

// What somebody is reading or writing stays as it is.
const inUse = (region) =>
  region.contains(document.activeElement) ||
  region.querySelector("details[open]") !== null ||
  edited(region) ||
  [getSelection()].some((chosen) => !chosen.isCollapsed && chosen.containsNode(region, true));

function renewRows(list, next) {
  const ids = new Set([...next.children].map((row) => row.id));
  let before = null;
  for (const row of [...next.children]) {
    const known = document.getElementById(row.id);
    const place = document.adoptNode(row);
    if (known === null) list.insertBefore(place, before === null ? list.firstChild : before.nextSibling);
    else if (!known.isEqualNode(place) && !inUse(known)) known.replaceWith(place);
    before = document.getElementById(row.id);
  }
  for (const row of [...list.children]) if (!ids.has(row.id) && !inUse(row)) row.remove();
}

async function renew() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { "X-Console-Refresh": "1" } });
  if (answer.redirected) {
    location.reload(); // Signed out meanwhile.
    return;
  }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const region of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(region.id);
    if (next !== null && !next.isEqualNode(region) && !inUse(region)) {
      region.replaceWith(document.adoptNode(next));
    }
  }
  for (const list of document.querySelectorAll("[data-rows]")) {
    const next = fresh.getElementById(list.id);
    if (next === null || next.isEqualNode(list)) continue;
    // Who is at the end of a thread stays there.
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
    renewRows(list, next);
    if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
  }
  document.title = fresh.title;
  noteRead();
}

// One at a time; what happens during one is seen by the next.
let renewing = false;
let again = false;
async function renewSoon() {
  again = true;
  if (renewing) return;
  renewing = true;
  while (again) {
    again = false;
    await renew().catch(() => {});
  }
  renewing = false;
}

// What is on a screen that somebody looks at has been read.
function noteRead() {
  const form = document.querySelector("[data-read]");
  if (form === null || document.hidden) return;
  const body = new URLSearchParams(new FormData(form));
  form.remove();
  fetch(form.action, { method: "POST", body }).catch(() => {});
}

let shown = 0;
function showTyping() {
  const line = document.querySelector("[data-typing]");
  if (line === null) return;
  line.textContent = "The visitor is typing …";
  clearTimeout(shown);
  shown = setTimeout(() => (line.textContent = ""), TYPING_HOLDS);
}

let told = 0;
document.addEventListener("input", ({ target }) => {
  const address = target.dataset.typingTo;
  if (address === undefined || Date.now() - told < TYPING_EVERY) return;
  told = Date.now();
  fetch(address, { method: "POST" }).catch(() => {});
});

// A page that nobody sees holds no stream: a browser opens only a few to one host.
let source = null;
function follow() {
  if (document.hidden) {
    source?.close();
    source = null;
    return;
  }
  if (source !== null && source.readyState !== EventSource.CLOSED) return;
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("open", renewSoon);
  source.addEventListener("changed", renewSoon);
  source.addEventListener("typing", showTyping);
}

if (document.querySelector("[data-live], [data-rows]") !== null) {
  setInterval(renewSoon, EVERY);
  noteRead();
}
if (document.body.dataset.events !== undefined) {
  follow();
  setInterval(follow, EVERY);
  document.addEventListener("visibilitychange", () => {
    follow();
    renewSoon();
  });
  addEventListener("pagehide", () => source?.close());
}
