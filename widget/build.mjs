// Builds dist/ and prints what it weighs. `--size` only prints. Over budget is a failure.
import { mkdir, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const ALL = { name: "everything", budget: 8 * 1024 };
const BUNDLES = [{ name: "chat.js", entry: "src/chat.ts", budget: 8 * 1024 }];

const write = !process.argv.includes("--size");
let total = 0;
let over = false;

function report(name, gzipped, budget) {
  const share = ((100 * gzipped) / budget).toFixed(0);
  console.log(`${name.padEnd(12)}${String(gzipped).padStart(6)} B gzip of ${budget} B  ${share} %`);
  over ||= gzipped > budget;
}

process.chdir(import.meta.dirname);
if (write) await mkdir("dist", { recursive: true });
for (const { name, entry, budget } of BUNDLES) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    outfile: `dist/${name}`,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    write: false,
  });
  for (const file of outputFiles) {
    const gzipped = gzipSync(file.contents, { level: 9 }).length;
    total += gzipped;
    report(basename(file.path), gzipped, budget);
    if (write) await writeFile(file.path, file.contents);
  }
}
report(ALL.name, total, ALL.budget);
if (over) {
  console.error("over budget");
  process.exitCode = 1;
}
