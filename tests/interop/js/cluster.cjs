// What clients of several servers see of them being one. Each server does what member.py says.
//
//     node cluster.cjs native|node|python-socketio http://127.0.0.1:PORT...
//
// Prints one JSON line a step, {"step", "ok"[, "error"]}.
const assert = require("node:assert").strict;
const { Buffer } = require("node:buffer");
const { io } = require("socket.io-client-4");

const [dialect, ...urls] = process.argv.slice(2);
const PER_SERVER = 2;
const STEP_TIMEOUT = 60_000;

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Client {
  constructor(url, number) {
    this.number = number;
    this.events = [];
    this.waiting = null;
    this.socket = io(url, { transports: ["websocket"], forceNew: true, reconnection: false, auth: { number } });
    this.socket.onAny((event, ...args) => {
      const answer = typeof args.at(-1) === "function" ? args.pop() : null;
      // The offset, which is one more argument for clients that may come back.
      if (dialect === "node-streams" && /^\d{13}-\d+$/.test(args.at(-1))) args.pop();
      this.events.push([event, ...args]);
      if (answer) this.answer(event, args, answer);
      this.waiting?.();
    });
  }

  answer(event, args, answer) {
    if (event === "ready?") answer({ number: this.number, args });
  }

  async connect() {
    if (!this.socket.connected) {
      await new Promise((resolve, reject) => {
        this.socket.once("connect", resolve);
        this.socket.once("connect_error", reject);
        this.socket.once("disconnect", (reason) => reject(new Error(reason)));
      });
      this.socket.off("disconnect");
    }
    this.id = this.socket.id;
    return this;
  }

  async do(op, order = {}) {
    const result = await new Promise((resolve) => this.socket.emit("do", { op, ...order }, resolve));
    assert.ok(!result?.error, `${op}: ${result?.error}`);
    return result;
  }

  // The events up to a mark, without it.
  async until(mark) {
    const found = () => this.events.findIndex(([event, what]) => event === "mark" && what === mark);
    while (found() < 0) await new Promise((resolve) => (this.waiting = resolve));
    const events = this.events.splice(0, found() + 1);
    return events.slice(0, -1);
  }
}

let clients; // those of the first server first
let firsts; // one of each server
let marks = 0;

// What each client has got of what was emitted by a server, once all of it must have arrived.
async function got(sender) {
  const mark = `mark ${++marks}`;
  await sender.do("emit", { event: "mark", each: [[mark]] });
  return Promise.all(clients.map((client) => client.until(mark)));
}

async function assertReaches(sender, audience, receivers) {
  await sender.do("emit", { ...audience, event: "hi", each: [[1, "ü"]] });
  const expected = clients.map((client) => (receivers.includes(client) ? [["hi", 1, "ü"]] : []));
  assert.deepEqual(await got(sender), expected, `from ${sender.number} to ${JSON.stringify(audience)}`);
}

// Until a change that went by another way has arrived everywhere.
async function until(condition) {
  for (;;) {
    const failed = await condition().then(() => null, (error) => error);
    if (!failed) return;
    await sleep(50);
    if (Date.now() > deadline) throw failed;
    for (const client of clients) client.events.length = 0;
  }
}

let deadline;

const steps = {
  "everybody": async () => {
    for (const sender of firsts) await assertReaches(sender, {}, clients);
  },

  "rooms": async () => {
    for (const client of firsts) await client.do("enter", { names: ["red"] });
    await clients[1].do("enter", { names: ["blue"] });
    await clients.at(-1).do("enter", { names: ["blue"] });
    const blue = [clients[1], clients.at(-1)];
    for (const sender of firsts) {
      await until(() => assertReaches(sender, { rooms: ["red"] }, firsts));
      await assertReaches(sender, { rooms: ["blue"] }, blue);
      await assertReaches(sender, { rooms: ["red", "blue"] }, clients.filter((c) => firsts.includes(c) || blue.includes(c)));
      await assertReaches(sender, { rooms: ["nobody"] }, []);
    }
  },

  "exceptions": async () => {
    for (const sender of firsts) {
      const excluded = firsts.map((client) => client.id);
      await assertReaches(sender, { except: excluded }, clients.filter((client) => !firsts.includes(client)));
      await assertReaches(sender, { rooms: ["red"], except: [firsts[0].id] }, firsts.slice(1));
      if (dialect !== "python-socketio") await assertReaches(sender, { except: ["red", "blue"] }, clients.slice(2, -1).filter((c) => !firsts.includes(c)));
    }
  },

  "one socket": async () => {
    for (const sender of firsts) {
      for (const client of clients) await assertReaches(sender, { rooms: [client.id] }, [client]);
    }
  },

  "binary": async () => {
    for (const sender of firsts) {
      await sender.do("emit", { rooms: ["red"], event: "image", each: [[{ png: Buffer.from([0, 255]) }, Buffer.from("x")]] });
      const events = (await got(sender)).flat();
      assert.equal(events.length, firsts.length);
      for (const [, { png }, x] of events) assert.deepEqual([[...png], x.toString()], [[0, 255], "x"]);
    }
  },

  "each once, in order": async () => {
    const numbers = Array.from({ length: 100 }, (_, number) => number);
    await Promise.all(
      firsts.map((sender) => sender.do("emit", { event: "n", each: numbers.map((number) => [sender.number, number]) })),
    );
    const seen = clients.map(() => []);
    for (const sender of firsts) (await got(sender)).forEach((events, index) => seen[index].push(...events));
    for (const events of seen) {
      for (const sender of firsts) {
        const from = events.filter(([event, number]) => event === "n" && number === sender.number);
        assert.deepEqual(from.map(([, , number]) => number), numbers);
      }
    }
  },

  "joining and leaving from afar": async () => {
    for (const [index, sender] of firsts.entries()) {
      const room = `far ${index}`;
      const ids = { rooms: [clients[0].id, clients.at(-1).id] };
      await sender.do("join", { ...ids, names: [room] });
      await until(() => assertReaches(sender, { rooms: [room] }, [clients[0], clients.at(-1)]));
      await sender.do("leave", { rooms: [clients[0].id], names: [room] });
      await until(() => assertReaches(sender, { rooms: [room] }, [clients.at(-1)]));
      await sender.do("leave", { rooms: [room], names: [room] });
      await until(() => assertReaches(sender, { rooms: [room] }, []));
      if (dialect === "python-socketio") continue;
      await sender.do("join", { rooms: ["red"], except: [clients[0].id], names: [room] });
      await until(() => assertReaches(sender, { rooms: [room] }, firsts.slice(1)));
      await sender.do("leave", { names: [room] });
      await until(() => assertReaches(sender, { rooms: [room] }, []));
    }
  },

  "who is there": async () => {
    if (dialect === "python-socketio") return;
    await clients[0].do("keep", { data: { name: "Zoë", list: [1, null] } });
    for (const sender of firsts) {
      const people = await sender.do("fetch");
      assert.deepEqual(people.map(({ id }) => id).sort(), clients.map(({ id }) => id).sort());
      const zoe = people.find(({ id }) => id === clients[0].id);
      assert.deepEqual([zoe.data, zoe.rooms], [{ name: "Zoë", list: [1, null] }, [zoe.id, "red"].sort()]);
      if (zoe.address) assert.deepEqual([zoe.address, zoe.auth], ["127.0.0.1", { number: 0 }]);
      const red = await sender.do("fetch", { rooms: ["red"], except: [clients[0].id] });
      assert.deepEqual(red.map(({ id }) => id).sort(), firsts.slice(1).map(({ id }) => id).sort());
    }
    const rooms = [...clients.map(({ id }) => id), "red", "blue"].sort();
    if (dialect === "node") assert.deepEqual(await firsts[0].do("rooms"), rooms);
  },

  "answers of clients": async () => {
    for (const sender of firsts) {
      const asked = dialect === "python-socketio" ? clients.map((client) => [client]) : [clients, firsts, [clients.at(-1)]];
      for (const receivers of asked) {
        const rooms = receivers === clients ? [] : receivers === firsts ? ["red"] : [receivers[0].id];
        const { answers, timeout } = await sender.do("call", { rooms, event: "ready?", args: [1, "b"], timeout: 50 });
        assert.ok(!timeout);
        answers.sort((one, other) => one.number - other.number);
        assert.deepEqual(answers, receivers.map(({ number }) => ({ number, args: [1, "b"] })));
      }
    }
    for (const sender of firsts) await got(sender);
  },

  "answers that do not come": async () => {
    if (dialect === "python-socketio") return;
    clients.at(-1).answer = () => {};
    // Side by side, so that the time may be long enough for slow answers.
    const asked = await Promise.all(firsts.map((sender) => sender.do("call", { event: "ready?", args: [], timeout: 8 })));
    for (const { answers, timeout } of asked) assert.deepEqual([answers.length, timeout], [clients.length - 1, true]);
    for (const sender of firsts) await got(sender);
  },

  "events between servers": async () => {
    if (dialect === "python-socketio") return;
    for (const sender of firsts) {
      assert.deepEqual(await sender.do("ask", { args: [21] }), firsts.slice(1).map(() => 42));
      await sender.do("tell", { args: ["hello", sender.number] });
    }
    for (const client of firsts) {
      const others = firsts.filter((other) => other !== client).map(({ number }) => ["hello", number]);
      await until(async () => assert.deepEqual(await client.do("heard"), others));
    }
  },

  "disconnecting from afar": async () => {
    // From the second on, each server disconnects a client of the server before.
    for (const [index, sender] of firsts.entries()) {
      if (!index) continue;
      const victim = clients[(index - 1) * PER_SERVER + 1];
      const gone = new Promise((resolve) => victim.socket.once("disconnect", resolve));
      await sender.do("disconnect", { rooms: [victim.id] });
      assert.equal(await gone, "io server disconnect");
      clients[(index - 1) * PER_SERVER + 1] = null;
    }
    clients = clients.filter((client) => client);
    for (const sender of firsts) await assertReaches(sender, {}, clients);
  },
};

async function main() {
  clients = urls.flatMap((url, server) => Array.from({ length: PER_SERVER }, (_, index) => new Client(url, server * PER_SERVER + index)));
  firsts = clients.filter((client, index) => index % PER_SERVER === 0);
  await Promise.all(clients.map((client) => client.connect()));
  // The servers may not hear each other yet.
  const heard = (sender) => (client) => client.events.some(([event, number]) => event === "hello" && number === sender.number);
  for (const sender of firsts) {
    while (!clients.every(heard(sender))) {
      await sender.do("emit", { event: "hello", each: [[sender.number]] });
      await sleep(50);
    }
  }
  for (const sender of firsts) await got(sender);
  for (const [step, play] of Object.entries(steps)) {
    deadline = Date.now() + STEP_TIMEOUT;
    const late = sleep(STEP_TIMEOUT + 5000).then(() => Promise.reject(new Error("takes too long")));
    late.catch(() => {});
    try {
      await Promise.race([play(), late]);
      report({ step, ok: true });
    } catch (error) {
      report({ step, ok: false, error: String(error.stack) });
      process.exit(1);
    }
  }
  process.exit(0);
}

main();
