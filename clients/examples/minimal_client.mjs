// A client of lptd with nothing but a MessagePack library.   npm install @msgpack/msgpack@3 && node minimal_client.mjs
import { connect } from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

const socket = connect(process.argv[3] ?? 5378, process.argv[2] ?? "127.0.0.1").setNoDelay();
const fail = (why) => (console.error(`${why}; usage: node minimal_client.mjs [HOST [PORT]]`), process.exit(1));
socket.on("error", ({ message }) => fail(message));
BigInt.prototype.toJSON = function () { return Number.isSafeInteger(Number(this)) ? Number(this) : String(this); };
const waiting = []; // msgid → who waits for the answer
const request = (method, ...params) => {
  socket.write(encode([0, waiting.length, method, params]));
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
};
const control = (code, ...input) => request("internal_device_control", code, new Uint8Array(input), 64);
(async () => {
  for await (const [kind, ...rest] of decodeMultiStream(socket, { useBigInt64: true })) {
    const [msgid, error, result] = rest; // of a response
    if (kind === 2) console.log(...rest); // a notification: method, params
    else if (error) waiting[msgid].reject(new Error(error.slice(1).join(": ")));
    else waiting[msgid].resolve(result);
  }
  for (const { reject } of waiting) reject(new Error("the daemon has closed the connection"));
})();

console.log("hello", await request("hello", { protocol: 1, client: "minimal_client.mjs" }));
const isr = [1, ...Array(31).fill(0)]; // PARALLEL_INTERRUPT_SERVICE_ROUTINE with InterruptServiceRoutine = 1
await control(0x160034, ...isr); // PARALLEL_CONNECT_INTERRUPT
await control(0x16002c); // PARALLEL_PORT_ALLOCATE: waits until the port is ours
await control(0x16204c, 0x08, 0, 0xe8, 3, 0, 0); // PULSE: D3 high for 1000 µs, an interrupt with the loop-back plug
console.log("status", JSON.stringify(await request("status")));
await control(0x1600a0); // PARALLEL_PORT_FREE
await control(0x160038, ...isr); // PARALLEL_DISCONNECT_INTERRUPT: answered after the last interrupt
socket.end();
