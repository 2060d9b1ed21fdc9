// Builds dist/ and prints what it weighs. `--size` only prints. Over budget is a failure.
//
// dist/loader.js is what pages name; chat.<language>.<hash>.js what it gets when somebody wants to
// chat, in one language only; manifest.json names them with their sizes and integrity.
import { createHash } from "node:crypto";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const LOADER = 1024;
const ALL = 8 * 1024;
// Arabic and Japanese words take two and three bytes a character.
const MORE = { ar: 256, ja: 256 };

process.chdir(import.meta.dirname);
const write = !process.argv.includes("--size");
let over = false;

const languages = (await readdir("src/strings")).map((name) => name.replace(/\.ts$/, "")).sort();
const chats = await Promise.all(
  languages.map(async (language) => {
    const words = {
      name: "words",
      setup(bundle) {
        const path = `${process.cwd()}/src/strings/${language}.ts`;
        bundle.onResolve({ filter: /^\.\/words$/ }, () => ({ path }));
      },
    };
    const chat = await bundled("src/chat.ts", { format: "esm", plugins: [words] });
    return { ...chat, language };
  }),
);
const all = hash(...chats.map(({ contents }) => contents));
for (const chat of chats) chat.file = `chat.${chat.language}.${all}.js`;
const loader = await bundled("src/loader.ts", {
  format: "iife",
  define: { LANGUAGES: JSON.stringify(languages.join("|")), BUILD: JSON.stringify(all) },
});
loader.file = "loader.js";

report("loader", loader.gzip, LOADER);
for (const { language, gzip } of chats) {
  report(`with ${language}`, loader.gzip + gzip, ALL + (MORE[language] ?? 0));
}

if (write) {
  await rm("dist", { recursive: true, force: true });
  await mkdir("dist");
  const pinned = { ...loader, file: `loader.${hash(loader.contents)}.js` };
  for (const { file, contents } of [loader, pinned, ...chats]) {
    await writeFile(`dist/${file}`, contents);
  }
  const named = ({ file, contents, gzip }) => ({
    file,
    bytes: contents.length,
    gzip,
    integrity: `sha384-${createHash("sha384").update(contents).digest("base64")}`,
  });
  const manifest = {
    loader: { ...named(pinned), stable: loader.file },
    chat: Object.fromEntries(chats.map((chat) => [chat.language, named(chat)])),
  };
  await writeFile("dist/manifest.json", `${JSON.stringify(manifest, null, 2)}\n`);
}
if (over) {
  console.error("over budget");
  process.exitCode = 1;
}

async function bundled(entry, options) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    write: false,
    plugins: [],
    ...options,
  });
  // The rule breaks of a template that become the style are only for the reader.
  const text = outputFiles[0].text.replaceAll("}\n", "}");
  const { code } = await minify(text, {
    ecma: 2022,
    module: options.format === "esm",
    toplevel: true,
    compress: { passes: 4, unsafe_arrows: true },
  });
  const contents = Buffer.from(code);
  return { contents, gzip: gzipSync(contents, { level: 9 }).length };
}

function hash(...contents) {
  return createHash("sha256").update(Buffer.concat(contents)).digest("hex").slice(0, 8);
}

function report(name, gzipped, budget) {
  const share = ((100 * gzipped) / budget).toFixed(0);
  console.log(`${name.padEnd(12)}${String(gzipped).padStart(6)} B gzip of ${budget} B  ${share} %`);
  over ||= gzipped > budget;
}
