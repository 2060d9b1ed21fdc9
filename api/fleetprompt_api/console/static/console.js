// Renews the regions marked data-live from the page's own address. Every page works without this.
"use strict";

const EVERY = 10_000; // milliseconds

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
}

if (document.querySelector("[data-live]") !== null) {
  setInterval(() => renew().catch(() => {}), EVERY);
}
