// Builds dist/ and prints what it weighs. `--size` only prints. Over budget is a failure.
//
// dist/loader.js is what pages name; chat.<language>.<hash>.js what it gets when somebody wants to
// chat, in one language only; manifest.json names them with their sizes and integrity.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const LOADER = 1024;
const ALL = 8 * 1024;
// Properties that only the bundle's own code knows: they get short names. What is sent, stored, told to other tabs
// (which may be of another build) or called by the loader is not among them.
const PRIVATE =
  "alone ask bootstrap change dialog field fields forget kept lead lines live note problem quiet renounce show tell unread wait yes";

// The breaks between the style's rules are only for the reader.
const style = {
  name: "style",
  setup(bundle) {
    bundle.onLoad({ filter: /style\.ts$/ }, async ({ path }) => {
      const contents = (await readFile(path, "utf8")).replaceAll("}\n", "}");
      return { contents, loader: "ts" };
    });
  },
};

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
  report(`with ${language}`, loader.gzip + gzip, ALL);
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
  const { plugins = [], ...rest } = options;
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minifySyntax: true,
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    write: false,
    mangleProps: new RegExp(`^(${PRIVATE.replaceAll(" ", "|")})$`),
    plugins: [style, ...plugins],
    ...rest,
  });
  const { code } = await minify(outputFiles[0].text, {
    ecma: 2022,
    module: options.format === "esm",
    toplevel: true,
    // What the unsafe ones assume holds here: built-in methods are the browser's, reading a property changes nothing, and
    // only numbers and texts are compared. The rest is what gzip packs best.
    compress: {
      passes: 4,
      hoist_funs: true,
      lhs_constants: false,
      pure_getters: true,
      reduce_funcs: false,
      unsafe: true,
      unsafe_arrows: true,
      unsafe_comps: true,
      unsafe_methods: true,
    },
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
