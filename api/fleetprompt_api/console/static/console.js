// Renews the regions marked data-live, and the rows of those marked data-rows, from the page's own
// address: every ten seconds, sooner while there is something marked data-soon, and where the page names
// events, as soon as one comes. Every page works without this.
"use strict";

const EVERY = 10_000; // milliseconds
const SOON = 1_500;
const TYPING_HOLDS = 6_000;
const TYPING_EVERY = 3_000;

const edited = (region) =>
  [...region.querySelectorAll("input, textarea, select")].some(
    (field) => field.value !== field.defaultValue || field.checked !== field.defaultChecked,
  );

// What somebody is reading or writing stays as it is; a link that has the focus has it in the new region too.
const inUse = (region) =>
  (region.contains(document.activeElement) && document.activeElement.tagName !== "A") ||
  region.querySelector("details[open]") !== null ||
  edited(region) ||
  [getSelection()].some((chosen) => !chosen.isCollapsed && chosen.containsNode(region, true));

function swap(region, next) {
  const href = region.contains(document.activeElement) ? document.activeElement.href : null;
  region.replaceWith(next);
  if (href !== null) [...next.querySelectorAll("a")].find((link) => link.href === href)?.focus();
}

function renewRows(list, next) {
  const ids = new Set([...next.children].map((row) => row.id));
  let before = null;
  for (const row of [...next.children]) {
    const known = document.getElementById(row.id);
    const place = document.adoptNode(row);
    if (known === null) list.insertBefore(place, before === null ? list.firstChild : before.nextSibling);
    else if (!known.isEqualNode(place) && !inUse(known)) swap(known, place);
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
      swap(region, document.adoptNode(next));
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
  expect();
}

let expected = 0;
function expect() {
  clearTimeout(expected);
  if (document.querySelector("[data-soon]") !== null) expected = setTimeout(renewSoon, SOON);
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

// From conversation to conversation. Only where the list has the focus: whoever speaks to the computer
// would press single keys by accident anywhere else (WCAG 2.1.4).
document.addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  const list = document.activeElement.closest(".conversations");
  if (step === undefined || list === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const links = [...list.querySelectorAll(".row-title")];
  links[links.indexOf(document.activeElement) + step]?.focus();
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
  expect();
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
