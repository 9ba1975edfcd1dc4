// Clients of several servers that count upwards to everybody, while something happens between the servers.
//
//     node faults.cjs CLIENTS_PER_SERVER http://127.0.0.1:PORT...
//
// A line on standard input is an order: `ask` has the first server fetch and call everybody, `gone N` says
// that server N will be killed, `finish` ends the counting and checks. Answers are JSON lines.
const { createInterface } = require("node:readline");
const { io } = require("socket.io-client-4");

const [perServer, ...urls] = process.argv.slice(2);
const INTERVAL = 20; // ms between two numbers of a server

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const gone = new Set(); // servers that were killed
const said = urls.map(() => []); // of each server, when it said each number, in ms
const clients = [];

class Client {
  constructor(server) {
    this.server = server;
    this.heard = urls.map(() => new Set());
    this.last = urls.map(() => -1);
    this.wrong = []; // what came twice, or out of order
    this.disconnected = 0;
    this.socket = io(urls[server], { transports: ["websocket"], forceNew: true, reconnection: false });
    this.socket.on("disconnect", () => this.disconnected++);
    this.socket.on("n", (sender, number) => {
      if (number <= this.last[sender]) this.wrong.push([sender, this.last[sender], number]);
      this.last[sender] = Math.max(number, this.last[sender]);
      this.heard[sender].add(number);
    });
    this.socket.on("ready?", (answer) => answer(this.server));
  }

  connected() {
    return new Promise((resolve, reject) => {
      this.socket.once("connect", resolve);
      this.socket.once("connect_error", reject);
    });
  }

  do(op, order = {}) {
    return new Promise((resolve) => this.socket.emit("do", { op, ...order }, resolve));
  }
}

const alive = () => clients.filter((client) => !gone.has(client.server));
const speaker = (server) => clients.find((client) => client.server === server);

function say() {
  urls.forEach((_, server) => {
    if (gone.has(server)) return;
    const number = said[server].push(Date.now()) - 1;
    speaker(server).socket.emit("do", { op: "emit", event: "n", each: [[server, number]] });
  });
}

async function finish(counting) {
  clearInterval(counting);
  const complete = () =>
    alive().every((client) =>
      urls.every((_, server) => gone.has(server) || client.last[server] === said[server].length - 1));
  const deadline = Date.now() + 60_000;
  while (!complete() && Date.now() < deadline) await sleep(50);
  const counts = [];
  for (const server of urls.keys()) counts.push(gone.has(server) ? null : await speaker(server).do("counts"));
  report({
    event: "finished",
    complete: complete(),
    said: said.map((times) => times.length),
    wrong: alive().flatMap((client) => client.wrong),
    disconnected: alive().reduce((sum, client) => sum + client.disconnected, 0),
    // [sender, receiver's server, when the first and the last missing number were said, how many]
    missing: alive().flatMap((client) =>
      urls.flatMap((_, sender) => {
        if (gone.has(sender)) return [];
        const times = said[sender].filter((_, number) => !client.heard[sender].has(number));
        return times.length ? [[sender, client.server, times[0], times.at(-1), times.length]] : [];
      })),
    counts,
  });
  process.exit(0);
}

async function ask() {
  const began = Date.now();
  const [people, answers] = await Promise.all([
    speaker(0).do("fetch"),
    speaker(0).do("call", { event: "ready?", args: [], timeout: 8 }),
  ]);
  report({ event: "asked", people, answers, took: Date.now() - began });
}

async function main() {
  for (const server of urls.keys()) {
    for (let i = 0; i < Number(perServer); i++) clients.push(new Client(server));
  }
  await Promise.all(clients.map((client) => client.connected()));
  const counting = setInterval(say, INTERVAL);
  while (!clients.every((client) => client.last[client.server] > 5)) await sleep(20);
  report({ event: "served" }); // each by its own server
  while (!clients.every((client) => client.last.every((last) => last > 5))) await sleep(20);
  report({ event: "counting" });
  for await (const line of createInterface({ input: process.stdin })) {
    const [order, argument] = line.split(" ");
    if (order === "finish") await finish(counting);
    else if (order === "ask") await ask();
    else if (order === "gone") {
      gone.add(Number(argument));
      report({ event: "gone" });
    }
  }
}

main().catch((error) => {
  report({ event: "failed", error: error.stack });
  process.exit(1);
});
