// A crowd of JavaScript clients for the soak: they connect, talk, join, are rude and check every number they get.
//
//     node crowd.cjs PACKAGE URL COUNT SEED
//
// Prints a JSON line for each number that is not the one expected, and its totals when it ends, by SIGTERM.
const { Buffer } = require("node:buffer");
const path = require("node:path");

const [packageName, url, count, seed] = process.argv.slice(2);
const io = require(path.join(__dirname, "../interop/node_modules", packageName));

const ROOMS = 20;
const PATIENCE = 40_000;
const EVERY = 3_000;
const TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]];

// Mulberry32: a small generator of random numbers, the same ones for the same seed.
let state = Number(seed);
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const upTo = (limit) => Math.floor(random() * limit);
const choose = (list) => list[upTo(list.length)];

const totals = { connects: 0, ticks: 0, told: 0, acks: 0, ends: {} };
const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const violated = (what) => report({ violation: `${packageName}: ${what}` });
const sameBytes = (data, number) => Buffer.from(data).every((byte) => byte === number % 256);

class Client {
  constructor(index) {
    this.transports = TRANSPORTS[index % 3];
    this.socket = io(url, { transports: this.transports, forceNew: true, reconnection: false, autoConnect: false });
    this.timers = new Set();
    this.connected = false;
    this.socket.on("connect", () => this.began());
    this.socket.on("disconnect", (reason) => this.ended(reason));
    this.socket.on("connect_error", () => this.again());
    this.socket.on("tick", (number, data) => {
      totals.ticks++;
      if (number !== this.ticks) violated(`tick ${number}, expected ${this.ticks}, on ${this.transports}`);
      this.ticks = number + 1;
      if (data && !sameBytes(data, number)) violated("other bytes than the server sent");
    });
    this.socket.on("told", (room, number) => {
      totals.told++;
      if (!this.rooms.has(room)) return violated(`told of ${room}, which it is not in`);
      if (number !== this.rooms.get(room)) violated(`told ${number}, expected ${this.rooms.get(room)}`);
      this.rooms.set(room, number + 1);
    });
    this.socket.on("question", (number, answer) => answer(number + 1));
    this.later(upTo(5_000), () => this.socket.connect());
  }

  later(delay, call) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      call();
    }, delay);
    this.timers.add(timer);
    return timer;
  }

  began() {
    totals.connects++;
    this.connected = true;
    this.ticks = this.says = this.acks = 0;
    this.rooms = new Map();
    this.act();
  }

  ended(reason) {
    // What is said when the heartbeat is late, client 4.8 keeps for the next connection, though it says it is connected.
    this.socket.sendBuffer = [];
    totals.ends[reason] = (totals.ends[reason] || 0) + 1;
    this.again();
  }

  again() {
    this.connected = false;
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    if (!stopping) this.later(500 + upTo(3_000), () => this.socket.connect());
  }

  // An event whose ack must come while the client is connected.
  call(then, ...event) {
    const late = this.later(PATIENCE, () => violated(`no ack of ${event[0]} on ${this.transports}`));
    this.socket.emit(...event, (answer) => {
      clearTimeout(late);
      this.timers.delete(late);
      totals.acks++;
      then(answer);
    });
  }

  say(...data) {
    const number = this.says++;
    this.call((answer) => {
      if (answer !== number || number !== this.acks) violated(`ack ${answer} of ${number}, expected ${this.acks}`);
      this.acks++;
    }, "say", number, ...data);
  }

  move() {
    const room = `room ${upTo(ROOMS)}`;
    if (!this.rooms.has(room)) {
      this.call((next) => this.rooms.set(room, next), "join", room);
    } else {
      this.call((next) => {
        if (next !== this.rooms.get(room)) violated(`left ${room} at ${this.rooms.get(room)}, expected ${next}`);
        this.rooms.delete(room);
      }, "leave", room);
    }
  }

  // No sign of life any more.
  fallAsleep() {
    const engine = this.socket.io.engine;
    engine.ping = () => {};
    const send = engine._sendPacket;
    if (send) engine._sendPacket = function (type, ...rest) { if (type !== "pong") send.call(this, type, ...rest); };
  }

  act() {
    if (!this.connected) return;
    this.later(EVERY / 2 + upTo(EVERY), () => this.act());
    const dice = upTo(100);
    if (dice < 60) for (let i = upTo(4); i >= 0; i--) this.say();
    else if (dice < 70) this.say(Buffer.alloc(1 + upTo(5_000), this.says % 256));
    else if (dice < 85) this.move();
    else if (dice < 92) this.call((answer) => { if (answer !== 8) violated(`${answer}, not 8`); }, "slowly", 7);
    else if (dice < 94) this.socket.disconnect();
    else if (dice < 96) this.socket.emit("kick me", random() < 0.5);
    else if (dice < 98) this.socket.io.engine.close();
    else if (dice < 99) this.fallAsleep();
  }
}

let stopping = false;
const clients = Array.from({ length: Number(count) }, (_, index) => new Client(index));
process.on("SIGTERM", () => {
  stopping = true;
  for (const client of clients) {
    client.again();
    client.socket.disconnect();
  }
  setTimeout(() => {
    report({ totals });
    process.exit(0);
  }, 500);
});
