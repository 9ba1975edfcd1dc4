// Clients of one server with several workers, on one port and without sticky sessions.
//
//     node cores.cjs URL COUNT MESSAGES TRANSPORTS AGENT
//
// TRANSPORTS is "polling", "websocket" or "polling,websocket"; AGENT is "pool", for kept-alive connections that all
// clients share, as a proxy's do, or "fresh", for a connection for each request. Each client joins one of four rooms,
// and posts numbers to it. Everybody in a room must get every number once and in order. Prints one line of JSON:
// {"workers": [...], "wrong": [...], "lost": [...]}.
const { Agent } = require("node:http");
const { io } = require("socket.io-client-4");

const [url, count, messages, transports, agent] = process.argv.slice(2);
const COUNT = Number(count);
const MESSAGES = Number(messages);
const ROOMS = 4;
const options = agent === "pool" ? { keepAlive: true, maxSockets: 64 } : { keepAlive: false };
const shared = new (url.startsWith("https") ? require("node:https").Agent : Agent)({ ...options, rejectUnauthorized: false });
const lost = [];

class Client {
  constructor(number) {
    this.number = number;
    this.room = `room ${number % ROOMS}`;
    this.got = new Map();
    this.total = 0;
    this.changed = () => {};
    this.socket = io(url, {
      transports: transports.split(","),
      forceNew: true,
      reconnection: false,
      agent: shared,
      rejectUnauthorized: false,
    });
    this.socket.on("connect_error", (error) => lost.push(`${number}: ${error}`));
    this.socket.on("disconnect", (reason) => reason.startsWith("io client") || lost.push(`${number}: ${reason}`));
    this.socket.on("posted", (sender, value, padding) => {
      this.got.set(sender, [...(this.got.get(sender) ?? []), value]);
      this.total += 1;
      this.changed();
    });
  }

  ask(...args) {
    return new Promise((resolve, reject) =>
      this.socket.timeout(30000).emit(...args, (error, result) => (error ? reject(error) : resolve(result))));
  }

  async until(total) {
    while (this.total < total) await new Promise((resolve) => (this.changed = resolve));
  }
}

async function main() {
  const clients = Array.from({ length: COUNT }, (_, number) => new Client(number));
  await Promise.all(clients.map(({ socket }) => new Promise((resolve) => socket.once("connect", resolve))));
  const workers = await Promise.all(clients.map((client) => client.ask("enter", client.room)));
  await Promise.all(clients.map(async (client) => {
    for (let value = 0; value < MESSAGES; value++) {
      client.socket.emit("post", client.room, client.number, value, Buffer.alloc(value % 50));
      if (value % 5 === 4) await client.ask("echo", value);
    }
  }));
  const expected = clients.filter(({ number }) => number % ROOMS === 0).length * MESSAGES;
  const patience = new Promise((resolve) => setTimeout(resolve, 20000));
  await Promise.race([patience, Promise.all(clients.map((client) => client.until(expected)))]);
  // A number that came twice would come now.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const wrong = [];
  for (const client of clients) {
    for (const sender of clients.filter(({ room }) => room === client.room)) {
      const values = client.got.get(sender.number) ?? [];
      if (values.length !== MESSAGES || values.some((value, place) => value !== place)) {
        wrong.push(`${client.number} got of ${sender.number}: ${values}`);
      }
    }
  }
  console.log(JSON.stringify({ workers: [...new Set(workers)], wrong, lost }));
  clients.forEach(({ socket }) => socket.disconnect());
  setTimeout(() => process.exit(0), 200);
}

main().catch((error) => {
  console.log(JSON.stringify({ error: String(error.stack), lost }));
  process.exit(1);
});
