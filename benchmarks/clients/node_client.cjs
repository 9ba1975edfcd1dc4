// The JavaScript client on Node, for `python -m benchmarks.clients`. CALL=callback: acks without a timeout and a promise.
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");
const { io } = createRequire(process.env.MODULES + "/")("socket.io-client-4");

const url = process.env.URL;
const payload = "x".repeat(64);
const byCallback = process.env.CALL === "callback";

const make = () => io(url, { transports: ["websocket"], forceNew: true });
const connected = (socket) => new Promise((resolve) => socket.once("connect", resolve));
const memory = () => { global.gc?.(); return process.memoryUsage.rss(); };
const client = make();
const idlers = [];
let left = 0, done;

client.on("news", () => { if (--left === 0) done(); });

const ask = byCallback
  ? () => new Promise((resolve) => client.emit("echo", payload, resolve))
  : () => client.timeout(60000).emitWithAck("echo", payload);

const commands = {
  async acks(count, window) {
    const worker = async () => { for (let i = 0; i < count / window; i++) await ask(); };
    await Promise.all(Array.from({ length: window }, worker));
  },
  async events(count, chunk) {
    left = count;
    await new Promise((resolve) => { done = resolve; client.emit("stream", payload, count, chunk); });
  },
  async answers(count, chunk) {
    for (let i = 0; i < count / chunk; i++) await commands.events(chunk, chunk);
  },
  async idle(count) {
    const before = memory();
    for (let i = 0; i < count / 50; i++) {
      const some = Array.from({ length: 50 }, make);
      await Promise.all(some.map(connected));
      idlers.push(...some);
    }
    return { memory: memory() - before };
  },
  async stay(seconds) {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    return { connected: idlers.filter((socket) => socket.connected).length };
  },
};

(async () => {
  await connected(client);
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line);
    const before = process.cpuUsage();
    const more = await commands[name](...args);
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ cpu: (user + system) / 1e6, ...more }));
  }
  process.exit();
})();
