// Tells the stories of model files with the module named first, as the program `story` does:
// MODULE [--kv q8] FILE...
import { readFileSync } from "node:fs";

const [path, ...files] = process.argv.slice(2);
const quantizeCache = files[0] === "--kv";
if (quantizeCache) files.splice(0, 2);

const { instance } = await WebAssembly.instantiate(readFileSync(path));
const { unit, put, story, text_byte } = instance.exports;

function text() {
  const bytes = [];
  for (let byte; (byte = text_byte(bytes.length)) >= 0; ) bytes.push(byte);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

function fail(reason) {
  console.error(`error: ${reason}`);
  process.exit(1);
}

unit();
console.log(text());
for (const file of files) {
  const bytes = readFileSync(file);
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  const words = new Uint32Array(padded.buffer);
  if (words.some((word, index) => put(index, word) < 0)) fail(`${file} is too large for the module`);
  let outcome;
  try {
    outcome = story(bytes.length, quantizeCache);
  } catch (error) {
    // A panic of the module traps, and leaves its message behind.
    fail(`${error}: ${text()}`);
  }
  if (outcome < 0) fail(`${file}: ${text()}`);
  console.log(`== ${file}\n${text()}`);
}
