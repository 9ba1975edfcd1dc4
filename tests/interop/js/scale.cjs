// Hundreds of clients of several servers behind one address, and what each of them gets.
//
//     node scale.cjs http://127.0.0.1:PORT COUNT SERVERS
//
// A third of them polls, a third is on WebSocket, a third upgrades; each comes from an address of its own.
// Prints one JSON line a step, {"step", "ok"[, "error"]}.
const assert = require("node:assert").strict;
const { Agent } = require("node:http");
const { io } = require("socket.io-client-4");

const [url, COUNT, SERVERS] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const ROOMS = 10;
const MESSAGES = 20;
const TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]];

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const numbers = (length) => Array.from({ length }, (_, number) => number);

class Client {
  constructor(number) {
    this.number = number;
    this.room = `room ${number % ROOMS}`;
    this.got = [];
    this.marks = new Set();
    this.changed = () => {};
    const localAddress = `127.0.${1 + Math.floor(number / 200)}.${1 + (number % 200)}`;
    this.socket = io(url, {
      transports: TRANSPORTS[number % 3],
      forceNew: true,
      reconnection: false,
      agent: new Agent({ keepAlive: true, localAddress }),
    });
    this.socket.on("n", (sender, count) => this.got.push([sender, count]));
    this.socket.on("mark", (mark) => {
      this.marks.add(mark);
      this.changed();
    });
    this.socket.on("ready?", (answer) => answer(this.number));
    this.gone = new Promise((resolve) => this.socket.once("disconnect", resolve));
  }

  async connect() {
    await new Promise((resolve, reject) => this.socket.once("connect", resolve).once("connect_error", reject));
    this.id = this.socket.id;
  }

  async do(op, order = {}) {
    const result = await new Promise((resolve) => this.socket.emit("do", { op, ...order }, resolve));
    assert.ok(!result?.error, `${op}: ${result?.error}`);
    return result;
  }

  async marked(mark) {
    while (!this.marks.has(mark)) await new Promise((resolve) => (this.changed = resolve));
  }
}

let clients;
let marks = 0;

// Each of the senders emits to some, as `order` says; each receiver gets everything once, and in order.
async function assertEach(senders, order, receives) {
  const mark = `mark ${++marks}`;
  for (const client of clients) client.got.length = 0;
  await Promise.all(
    senders.map(async (sender) => {
      const each = numbers(MESSAGES).map((count) => [sender.number, count]);
      await sender.do("emit", { ...order(sender), event: "n", each });
      await sender.do("emit", { event: "mark", each: [[`${mark} of ${sender.number}`]] });
    }),
  );
  for (const client of clients) {
    for (const sender of senders) await client.marked(`${mark} of ${sender.number}`);
  }
  for (const client of clients) {
    const expected = senders.filter((sender) => receives(client, sender)).length * MESSAGES;
    assert.equal(client.got.length, expected, `client ${client.number} got ${client.got.length}, expected ${expected}`);
    for (const sender of senders) {
      const counts = client.got.filter(([number]) => number === sender.number).map(([, count]) => count);
      assert.deepEqual(counts, receives(client, sender) ? numbers(MESSAGES) : []);
    }
  }
}

const steps = {
  "all are there, on all servers": async () => {
    const servers = new Set(clients.map(({ id }) => id.slice(0, 8)));
    assert.equal(servers.size, SERVERS);
    const kinds = new Set(clients.map(({ socket }) => socket.io.engine.transport.name));
    assert.deepEqual([...kinds].sort(), ["polling", "websocket"]);
    for (const client of clients) await client.do("enter", { names: [client.room] });
  },

  "rooms": () => assertEach(clients.slice(0, 30), ({ room }) => ({ rooms: [room] }), (client, sender) => client.room === sender.room),

  "everybody": () => assertEach(clients.slice(30, 34), () => ({}), () => true),

  "several rooms, without some": () =>
    assertEach(
      clients.slice(40, 46),
      ({ id }) => ({ rooms: ["room 1", "room 2"], except: ["room 3", clients[1].id, id] }),
      (client, sender) => /room [12]/.test(client.room) && client !== clients[1] && client !== sender,
    ),

  "joining and leaving": async () => {
    await clients[0].do("join", { rooms: ["room 1"], names: ["joined"] });
    await clients[0].do("leave", { rooms: [clients[1].id], names: ["joined"] });
    await assertEach(
      [clients[0]],
      () => ({ rooms: ["joined"] }),
      (client) => client.room === "room 1" && client !== clients[1],
    );
  },

  "who is there": async () => {
    const people = await clients[0].do("fetch");
    assert.deepEqual(people.map(({ id }) => id).sort(), clients.map(({ id }) => id).sort());
    const some = await clients[7].do("fetch", { rooms: ["room 5"] });
    const expected = clients.filter(({ room }) => room === "room 5").map(({ id }) => id);
    assert.deepEqual(some.map(({ id }) => id).sort(), expected.sort());
  },

  "answers of all": async () => {
    const { answers } = await clients[0].do("call", { event: "ready?", args: [], timeout: 60 });
    assert.deepEqual(answers.sort((one, other) => one - other), numbers(COUNT));
  },

  "disconnecting": async () => {
    const leaving = clients.filter(({ room }) => room === "room 9");
    await clients[0].do("disconnect", { rooms: ["room 9"] });
    for (const client of leaving) assert.equal(await client.gone, "io server disconnect");
    clients = clients.filter((client) => !leaving.includes(client));
    await assertEach([clients[3]], () => ({}), () => true);
  },
};

async function main() {
  clients = numbers(COUNT).map((number) => new Client(number));
  await Promise.all(clients.map((client) => client.connect()));
  for (const [step, play] of Object.entries(steps)) {
    try {
      await play();
      report({ step, ok: true });
    } catch (error) {
      report({ step, ok: false, error: String(error.stack) });
      process.exit(1);
    }
  }
  process.exit(0);
}

main();
