// Clients of one server with several workers, on one port and without sticky sessions.
//
//     node cores.cjs JSON
//
// JSON has {url, package, first, count, all, rooms, messages, transports, by}. The clients of this process have the
// numbers from `first` on, among `all` of several processes; `transports` is a list of lists, of which they take one
// each in turn. `by` is the way of their connections:
//
//     fresh   a connection for each request
//     pool    kept-alive connections that all clients share, as a proxy's
//     http2   streams of a few HTTP/2 connections, for polling
//     PATH    fresh connections to a UNIX socket
//
// Each client joins a room and, at a line of standard input, posts numbers to it. Everybody in a room must get every
// number once and in order. Prints {"entered": [worker, ...]} and then {"got", "wrong": [...], "lost": [...]}; at another
// line all say goodbye. Whatever has not come when no client has heard anything for a minute is lost. A fixed time for
// each ack would measure the machine: 300 clients make 17,000 connections, and two cores take a minute for their TLS.
const http = require("node:http");
const http2 = require("node:http2");
const https = require("node:https");
const net = require("node:net");
const { once } = require("node:events");

const { url, package: name, first, count, all, rooms, messages, transports, by } = JSON.parse(process.argv[2]);
const library = require(name);
const io = library.io ?? library;
const lost = [];

const PATIENCE = 60000;
const asked = new Set();
let heard;
async function inTime(work) {
  heard = Date.now();
  let look;
  const silence = new Promise((_, reject) => {
    look = setInterval(() => {
      if (Date.now() - heard > PATIENCE) reject(new Error(`nothing came for a minute, no ack of ${[...asked].join()}`));
    }, 1000);
  });
  return Promise.race([work, silence]).finally(() => clearInterval(look));
}

class UnixAgent extends http.Agent {
  createConnection(_, connected) {
    return net.connect(by, connected);
  }
}

function agent() {
  if (by.includes("/") || by.includes(".")) return new UnixAgent({ keepAlive: false });
  const options = by === "pool" ? { keepAlive: true } : { keepAlive: false };
  return new (url.startsWith("https") ? https : http).Agent({ ...options, rejectUnauthorized: false });
}

// The client's own transport for fetch(), whose requests become streams of HTTP/2.
const STREAMS = 25;
let session;
let streams = 0;
function fetchByHTTP2(target, { method, body, headers }) {
  const { pathname, search } = new URL(target);
  if (streams++ % STREAMS === 0) session = http2.connect(url, { rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  const stream = session.request({ ":method": method, ":path": pathname + search, ...Object.fromEntries(headers) });
  return new Promise((resolve, reject) => {
    let text = "";
    let status;
    stream.setEncoding("utf8");
    stream.on("response", (fields) => (status = fields[":status"]));
    stream.on("data", (chunk) => (text += chunk));
    stream.on("error", reject);
    stream.on("end", () => resolve({ ok: status === 200, status, text: async () => text, headers: new Headers() }));
    stream.end(body ?? undefined);
  });
}

// The package does not export it for require().
const fetching = () => require(require.resolve("engine.io-client", { paths: [require.resolve(name)] })).Fetch;

const shared = by === "http2" ? undefined : agent();
if (by === "http2") globalThis.fetch = fetchByHTTP2;

class Client {
  constructor(number) {
    this.number = number;
    this.room = `room ${number % rooms}`;
    this.got = new Map();
    this.total = 0;
    this.changed = () => {};
    this.socket = io(url, {
      transports: by === "http2" ? [fetching()] : transports[number % transports.length],
      forceNew: true,
      reconnection: false,
      agent: shared,
      rejectUnauthorized: false,
      timeout: 60000,
    });
    this.socket.on("connect_error", (error) => lost.push(`${number}: ${error} ${error.description ?? ""}`));
    this.socket.on("disconnect", (reason) => reason.startsWith("io client") || lost.push(`${number}: ${reason}`));
    this.socket.on("posted", (sender, value) => {
      const values = this.got.get(sender);
      values ? values.push(value) : this.got.set(sender, [value]);
      this.total += 1;
      heard = Date.now();
      this.changed();
    });
  }

  connected() {
    return new Promise((done) => (this.socket.connected ? done() : this.socket.once("connect", done)));
  }

  ask(...args) {
    const name = `${this.number}: ${args}`;
    asked.add(name);
    return new Promise((resolve) => {
      this.socket.emit(...args, (result) => {
        heard = Date.now();
        asked.delete(name);
        resolve(result);
      });
    });
  }

  async post() {
    for (let value = 0; value < messages; value++) {
      this.socket.emit("post", this.room, this.number, value, Buffer.alloc(value % 3 ? 0 : 40));
      if (value % 5 === 4) await this.ask("echo", value);
    }
  }

  async until(total) {
    while (this.total < total) await new Promise((resolve) => (this.changed = resolve));
  }

  check() {
    const wrong = [];
    for (let sender = this.number % rooms; sender < all; sender += rooms) {
      const values = this.got.get(sender) ?? [];
      this.got.delete(sender);
      if (values.length !== messages || values.some((value, place) => value !== place)) {
        wrong.push(`${this.number} got of ${sender}: ${values}`);
      }
    }
    return [...wrong, ...[...this.got.keys()].map((sender) => `${this.number} got of ${sender}`)];
  }
}

async function main() {
  const clients = [];
  // Not all at once: the workers choose by the number of sessions, which those on their way do not count for.
  while (clients.length < count) {
    const some = Array.from({ length: Math.min(10, count - clients.length) }, (_, place) =>
      new Client(first + clients.length + place));
    await inTime(Promise.all(some.map((client) => client.connected())));
    clients.push(...some);
  }
  const entered = await inTime(Promise.all(clients.map((client) => client.ask("enter", client.room))));
  console.log(JSON.stringify({ entered }));
  await once(process.stdin, "data");
  await inTime(Promise.all(clients.map((client) => client.post())));
  const due = ({ number }) => Math.ceil((all - (number % rooms)) / rooms) * messages;
  await inTime(Promise.all(clients.map((client) => client.until(due(client))))).catch((error) => lost.push(String(error)));
  // A number that came twice would come now.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const got = clients.reduce((sum, { total }) => sum + total, 0);
  console.log(JSON.stringify({ got, wrong: clients.flatMap((client) => client.check()), lost }));
  await once(process.stdin, "data");
  clients.forEach(({ socket }) => socket.disconnect());
  setTimeout(() => process.exit(0), 300);
}

main().catch((error) => {
  console.log(JSON.stringify({ error: String(error.stack), lost }));
  process.exit(1);
});
