// Loads the module named by the argument and runs the kernels' suite in it.
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv.at(-1)));
const { conformance, message_byte } = instance.exports;

function message() {
  const bytes = [];
  for (let byte; (byte = message_byte(bytes.length)) >= 0; ) bytes.push(byte);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

let compared;
try {
  compared = conformance();
} catch (error) {
  // A panic of the module traps, and leaves its message behind.
  console.error(`${error}: ${message()}`);
  process.exit(1);
}
if (compared < 0) {
  console.error(message());
  process.exit(1);
}
console.log(`${message()}: ${compared} results compared`);
// The scalar kernels would pass as well, and prove nothing.
process.exit(message() === "simd128" ? 0 : 1);
