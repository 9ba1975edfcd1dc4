// Clients that check every number they get, over lost connections:
//
//     node recovery.cjs PACKAGE URL COUNT ABLE [apart|calm]
//
// With "apart", each client has an address of its own; with "calm", no client ends a connection.  By SIGUSR2 they become calm.
//
// With ABLE=1 they have to be recovered each time, with 0 never.  Prints a JSON line for each number that is not the one
// expected, with what the client got before it; a line for each life of a client, from "begin" to the next one, with the
// last number of each server; and the totals when it ends, by SIGTERM.  tests/interop/oracle.py judges the lines.
const http = require("node:http");
const path = require("node:path");

const [packageName, url, count, able, manner] = process.argv.slice(2);
let isCalm = manner === "calm";
const io = require(path.join(__dirname, "../node_modules", packageName));
const TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]];

const totals = {
  connects: 0, recovered: 0, fresh: 0, events: 0, missing: 0, double: 0, disordered: 0, kept: 0,
};
const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const now = () => Date.now() / 1000;
const violated = (kind, what, fields) => report({ violation: `${packageName}: ${what}`, kind, at: now(), ...fields });

class Client {
  constructor(index) {
    this.agent = manner === "apart" ? new http.Agent({ localAddress: `127.0.${index + 1}.7`, keepAlive: true }) : undefined;
    this.transports = TRANSPORTS[index % 3];
    this.open();
  }

  open() {
    this.expected = null;
    this.lately = [];
    this.wasHere = this.welcome = false;
    this.server = this.opened = null;
    // Connections since the last CONNECT of a server, this one included: one of them may have fetched the client.
    this.attempts = 0;
    const socket = (this.socket = io(url, {
      transports: this.transports, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 600, timeout: 8_000,
      autoConnect: false, ...(this.agent ? { agent: this.agent } : {}),
    }));
    // socket.io-parser 3 keeps an event that lacks its attachments over the end of the connection, and throws at the first
    // packet of the next one.
    const decoder = socket.io.decoder;
    if (able !== "1") decoder.destroy = () => (decoder.reconstructor = null);
    // The client keeps events that it takes in after its own end of a connection, handles them at the next CONNECT, and
    // does not count them in the offset of that: they would come twice.
    socket.io.on("reconnect_attempt", () => {
      totals.kept += socket.receiveBuffer.length;
      socket.receiveBuffer = [];
    });
    socket.io.on("open", () => {
      this.opened = now();
      this.attempts++;
    });
    // The offset in CONNECT begins with the name of the server's log.  The socket itself listens behind this.
    socket.io.on("packet", ({ type, data }) => {
      if (type === 0) this.comes = data?.offset?.split(".")[0] ?? null;
    });
    socket.on("connect", () => {
      totals.connects++;
      this.note(`connect, ${socket.recovered ? "recovered" : "fresh"}`);
      this.connected(socket, { from: this.server, to: this.comes, opened: this.opened, attempts: this.attempts });
      this.welcome = true;
      this.wasHere = true;
      this.id = socket.id;
      this.server = this.comes;
      this.attempts = 0;
      this.since = now();
    });
    socket.on("disconnect", (reason) => {
      this.welcome = false;
      this.note(reason);
    });
    socket.on("begin", (all, even, server) => {
      if (this.expected) violated("begin", '"begin" for a client that was recovered');
      this.began = now();
      this.expected = { [`all ${server}`]: all, [`even ${server}`]: even, [`tick ${server}`]: 0 };
      this.came = {};
      this.skipped = new Set();
    });
    for (const name of ["all", "even", "tick"]) {
      socket.on(name, (number, server, ...rest) => {
        totals.events++;
        const row = `${name} ${server}`;
        this.note(`${row} ${number} ${rest.at(-1)}`);
        if (!this.welcome) violated("early", `${row} ${number} before "connect"`);
        if (able !== "1" && rest.some((value) => typeof value === "string")) violated("offset", "an offset");
        if (!this.expected) return violated("early", `${name} before begin`);
        this.check(row, number, this.expected[row] ?? this.first(server, number));
      });
    }
    socket.connect();
    this.act();
  }

  // Takes what a client is told at its return: the same session, or a fresh one.
  connected(socket, move) {
    if (socket.recovered) {
      totals.recovered++;
      if (able !== "1") violated("recovered", "recovered");
      if (socket.id !== this.id) violated("recovered", `recovered as ${socket.id}, and was ${this.id}`);
    } else if (this.wasHere) {
      totals.fresh++;
      if (able === "1") violated("fresh", `not recovered, on ${this.transports}`, move);
      this.end();
      socket.emit("was", this.id); // who is that no longer
    }
  }

  // The first number of a server that has started since the client came is 0; that of another one is not known.
  first(server, number) {
    return Number(server.split("@")[1]) / 1000 > this.began ? 0 : number;
  }

  end() {
    if (this.expected) {
      report({ life: this.id, began: this.began, ended: now(), since: this.welcome ? this.since : null, came: this.came });
    }
    this.expected = null;
  }

  note(text) {
    this.lately.push(text);
    if (this.lately.length > 8) this.lately.shift();
  }

  check(row, number, expected) {
    this.expected[row] = Math.max(number + 1, expected);
    this.came[row] = [number, now()];
    if (number === expected) return;
    for (let skipped = expected; skipped < number; skipped++) {
      totals.missing++;
      this.skipped.add(`${row} ${skipped}`);
    }
    let kind = "missing";
    if (number < expected && this.skipped.delete(`${row} ${number}`)) {
      totals.missing--;
      totals.disordered++;
      kind = "disordered";
    } else if (number < expected) {
      totals.double++;
      kind = "double";
    }
    violated(kind, `${row} ${number}, expected ${expected}, on ${this.transports}, after ${this.lately.join("; ")}`, {
      row, number, expected, server: this.server, id: this.id,
    });
  }

  act() {
    this.timer = setTimeout(() => {
      const dice = Math.random();
      if (isCalm) return;
      if (dice < 0.03) {
        this.end();
        this.socket.disconnect(); // as a page that is loaded again
        return this.open();
      }
      if (dice < 0.15 && this.socket.io.engine) this.socket.io.engine.close();
      else if (dice < 0.25) this.socket.emit("close");
      else if (this.socket.connected) this.socket.emit("ask", 1, () => {});
      this.act();
    }, 500 + Math.random() * 1500);
  }
}

const clients = Array.from({ length: Number(count) }, (_, index) => new Client(index));
process.on("SIGUSR2", () => (isCalm = true));
process.on("SIGTERM", () => {
  for (const client of clients) client.end();
  report({ totals });
  for (const client of clients) {
    clearTimeout(client.timer);
    client.socket.disconnect();
  }
  // Time to say goodbye, so that the server need not wait for anybody when it stops.
  setTimeout(() => process.exit(0), 500);
});
