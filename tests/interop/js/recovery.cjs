// Clients that check every number they get, over lost connections:
//
//     node recovery.cjs PACKAGE URL COUNT ABLE [apart]
//
// With "apart", each client has an address of its own.
//
// With ABLE=1 they have to be recovered each time, with 0 never.  Prints a JSON line for each number that is not the one
// expected, with what the client got before it, and the totals when it ends, by SIGTERM.
const http = require("node:http");
const path = require("node:path");

const [packageName, url, count, able, apart] = process.argv.slice(2);
const io = require(path.join(__dirname, "../node_modules", packageName));
const TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]];

const totals = {
  connects: 0, recovered: 0, fresh: 0, events: 0, missing: 0, double: 0, disordered: 0, kept: 0,
};
const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const violated = (what) => report({ violation: `${packageName}: ${what}`, at: Date.now() / 1000 });

class Client {
  constructor(index) {
    this.agent = apart ? new http.Agent({ localAddress: `127.0.${index + 1}.7`, keepAlive: true }) : undefined;
    this.transports = TRANSPORTS[index % 3];
    this.open();
  }

  open() {
    this.expected = null;
    this.skipped = new Set();
    this.lately = [];
    this.wasHere = this.welcome = false;
    const socket = (this.socket = io(url, {
      transports: this.transports, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 600, timeout: 8_000, ...(this.agent ? { agent: this.agent } : {}),
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
    socket.on("connect", () => {
      totals.connects++;
      this.welcome = true;
      this.note(`connect, ${socket.recovered ? "recovered" : "fresh"}`);
      if (socket.recovered) totals.recovered++;
      else if (this.wasHere) {
        totals.fresh++;
        if (able === "1") violated(`not recovered, on ${this.transports}`);
        socket.emit("was", this.id); // who is that no longer
      }
      if (socket.recovered && able !== "1") violated("recovered");
      this.wasHere = true;
      this.id = socket.id;
    });
    socket.on("disconnect", (reason) => {
      this.welcome = false;
      this.note(reason);
    });
    socket.on("begin", (all, even, server) => {
      this.expected = { [`all ${server}`]: all, [`even ${server}`]: even, [`tick ${server}`]: 0 };
    });
    for (const name of ["all", "even", "tick"]) {
      socket.on(name, (number, server, ...rest) => {
        totals.events++;
        const row = `${name} ${server}`;
        this.note(`${row} ${number} ${rest.at(-1)}`);
        if (!this.welcome) violated(`${row} ${number} before "connect"`);
        if (able !== "1" && rest.some((value) => typeof value === "string")) violated("an offset");
        if (!this.expected) return violated(`${name} before begin`);
        // The first number of a server that has started since is not known.
        this.check(row, number, this.expected[row] ?? number);
      });
    }
    this.act();
  }

  note(text) {
    this.lately.push(text);
    if (this.lately.length > 8) this.lately.shift();
  }

  check(row, number, expected) {
    this.expected[row] = Math.max(number + 1, expected);
    if (number === expected) return;
    for (let skipped = expected; skipped < number; skipped++) {
      totals.missing++;
      this.skipped.add(`${row} ${skipped}`);
    }
    if (number < expected && this.skipped.delete(`${row} ${number}`)) {
      totals.missing--;
      totals.disordered++;
    } else if (number < expected) totals.double++;
    violated(`${row} ${number}, expected ${expected}, on ${this.transports}, after ${this.lately.join("; ")}`);
  }

  act() {
    this.timer = setTimeout(() => {
      const dice = Math.random();
      if (dice < 0.03) {
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
process.on("SIGTERM", () => {
  report({ totals });
  for (const client of clients) {
    clearTimeout(client.timer);
    client.socket.disconnect();
  }
  // Time to say goodbye, so that the server need not wait for anybody when it stops.
  setTimeout(() => process.exit(0), 500);
});
