// Greets somebody and counts the letters of a protected message, which stays inside the enclave.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { openProtectedData } from "./protected.mjs";

function answer() {
  const data = openProtectedData();
  if (data === null) return "Nobody gave me protected data.";
  const message = data.read("message.txt").toString("utf8");
  return `The protected message has ${message.length} letters. Only this enclave has read them.`;
}

try {
  const out = process.env.IEXEC_OUT;
  const name = process.argv.slice(2).join(" ") || "World";
  const result = join(out, "hello.txt");
  writeFileSync(result, `Hello, ${name}!\n${answer()}\n`);
  // Every run must say which file (or folder) is its result: the hash of it goes on the chain.
  writeFileSync(join(out, "computed.json"), JSON.stringify({ "deterministic-output-path": result }));
} catch (error) {
  console.error(`this app needs protected data with a file message.txt: ${error.message}`);
  process.exitCode = 1;
}
