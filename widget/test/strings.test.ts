import assert from "node:assert/strict";
import { test } from "node:test";
import * as ar from "../src/strings/ar";
import * as de from "../src/strings/de";
import * as en from "../src/strings/en";
import * as es from "../src/strings/es";
import * as fr from "../src/strings/fr";
import * as ja from "../src/strings/ja";

const languages: Record<string, Record<string, unknown>> = { ar, de, en, es, fr, ja };

for (const [language, words] of Object.entries(languages)) {
  test(`${language} says everything, in its direction`, () => {
    assert.deepEqual(Object.keys(words).sort(), Object.keys(en).sort());
    assert.equal(words["language"], language);
    assert.equal(words["direction"], language === "ar" ? "rtl" : "ltr");
    for (const [name, word] of Object.entries(words)) {
      const said = typeof word === "function" ? (word as typeof en.typing)("Anna") : word;
      assert.ok(typeof said === "string" && said.trim() === said && said, name);
      if (name === "typing") assert.ok((said as string).includes("Anna"));
    }
  });
}
