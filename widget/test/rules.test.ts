// What the widget's sources may not use: the strictest page policy forbids it, or consent does.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const FORBIDDEN: [string, RegExp][] = [
  [
    "markup from text (trap 25, Trusted Types)",
    /\b(?:inner|outer)HTML\b|insertAdjacentHTML|document\.write/,
  ],
  ["code from text", /\beval\s*\(|new Function\b/],
  [
    "cookies and storage that is written without asking (trap 18)",
    /\bcookie\b|\b(?:local|session)Storage\b/,
  ],
  ["style attributes and elements", /setAttribute\(\s*["']style|createElement\(\s*["']style/],
  ["a stream that cannot send a header (trap 12)", /new EventSource\b/],
  ["emoji, which cost a font (trap 27)", /\p{Emoji_Presentation}|\u{fe0f}/u],
];

const sources = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
);

test("traps 12, 18, 25 and trap 27: the sources use nothing that a strict page, consent or a phone forbids", () => {
  assert.ok(sources.length > 0);
  for (const name of sources) {
    const text = readFileSync(`src/${name}`, "utf8");
    for (const [what, pattern] of FORBIDDEN) assert.doesNotMatch(text, pattern, `${name}: ${what}`);
  }
});

test("nothing is needed when the widget runs but what is in it", () => {
  const manifest = JSON.parse(readFileSync("package.json", "utf8")) as Record<string, unknown>;
  assert.equal(manifest["dependencies"], undefined);
  for (const name of sources) {
    for (const [, from] of readFileSync(`src/${name}`, "utf8").matchAll(/from "([^"]+)"/g)) {
      assert.match(from!, /^\.\//, `${name} imports ${from}`);
    }
  }
});
