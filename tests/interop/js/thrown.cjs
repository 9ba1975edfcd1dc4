// Clients that are thrown from one server of a cluster to another, and check every number they get:
//
//     node thrown.cjs THROWS CLIENTS OURS URL...
//
// The servers are those of member.cjs and tests/interop/member.py; the first OURS of them are txrealtime's.  In one round
// all clients go to these, while a server goes on emitting.  In the next they go to any server; the emitting pauses before
// they come, because Node's adapter loses or doubles an entry that is added between its last read and the join.  One server
// emits at a time: among Node's servers, a server's own events overtake those of others.
//
// Prints the totals as a JSON line, and one for each client that got something wrong.
const { io } = require("socket.io-client-4");

const [throws, count, ours, ...urls] = process.argv.slice(2);
const OURS = Number(ours);
const OFFSET = /^\d{13}-\d+$/;

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const random = (below) => Math.floor(Math.random() * below);
const options = { transports: ["websocket"], forceNew: true, reconnection: false };

const totals = { throws: 0, toOurs: 0, toNode: 0, numbers: 0, fresh: 0, missing: 0, double: 0, disordered: 0 };

// What was said, in order: for each number the client is a receiver or not.
const said = [];

class Client {
  constructor(index) {
    this.index = index;
    this.isRed = index % 2 === 1;
  }

  async come(server) {
    const before = this.socket;
    const auth = before ? { pid: before._pid, ...(before._lastOffset && { offset: before._lastOffset }) } : {};
    const socket = (this.socket = io(urls[server], { ...options, auth }));
    socket.on("n", (n, ...rest) => {
      if (typeof rest.at(-1) === "string" && OFFSET.test(rest.at(-1))) rest.pop();
      else report({ violation: `a number without an offset, on server ${this.server}` });
      if (n % 7 === 0 && rest[0]?.length !== 3) report({ violation: "bytes are missing" });
      this.got.push(n);
    });
    if (!before) this.begin();
    await new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("connect_error", reject);
    });
    if (before && socket.id !== this.id) {
      totals.fresh++;
      report({ violation: `client ${this.index} is fresh on server ${server}, before on ${this.server}`, ...auth });
      this.begin();
    }
    if (!before || socket.id !== this.id) {
      await new Promise((resolve) => socket.emit("do", { op: "enter", names: this.isRed ? ["red"] : ["green"] }, resolve));
    }
    [this.server, this.id] = [server, socket.id];
    // A client that has had no number since it got its pid has no offset: Node's servers would not take it.
  }

  begin() {
    this.got = [];
    this.since = said.length;
  }

  go() {
    this.socket.io.engine.close();
  }

  check() {
    const expected = said.slice(this.since).filter((each) => each.reaches(this)).map((each) => each.n);
    const got = this.got;
    totals.numbers += got.length;
    if (expected.length !== got.length || expected.some((n, at) => n !== got[at])) {
      const missing = expected.filter((n) => !got.includes(n));
      const double = got.filter((n, at) => got.indexOf(n) !== at);
      totals.missing += missing.length;
      totals.double += double.length;
      if (!missing.length && !double.length) totals.disordered++;
      report({ violation: `client ${this.index} on server ${this.server}`, missing, double, got, expected });
    }
    this.begin();
  }
}

async function main() {
  const controls = await Promise.all(
    urls.map(async (url) => {
      const socket = io(url, options);
      socket.seen = new Set();
      socket.on("mark", (mark) => socket.seen.add(mark));
      await new Promise((resolve) => socket.once("connect", resolve));
      return socket;
    }),
  );
  const clients = Array.from({ length: Number(count) }, (_, index) => new Client(index));
  await Promise.all(clients.map((client) => client.come(client.index % urls.length)));

  let n = 0;
  function say(control) {
    n++;
    const to = clients[n % clients.length];
    const [audience, reaches] = [
      [{}, () => true],
      [{ rooms: ["red"] }, (client) => client.isRed],
      [{ rooms: [to.id] }, (client) => client === to],
      [{ except: ["red"] }, (client) => !client.isRed],
    ][n % 4];
    said.push({ n, reaches });
    const args = n % 7 === 0 ? [n, Buffer.from("abc")] : [n];
    control.emit("do", { op: "emit", event: "n", each: [args], ...audience }, () => {});
  }

  // Everything that was said has arrived everywhere.
  async function settled(control) {
    const mark = `mark ${n}`;
    control.emit("do", { op: "emit", event: "mark", each: [[mark]] }, () => {});
    while (!controls.every((each) => each.seen.has(mark))) await sleep(2);
    await sleep(20);
    for (const each of controls) each.seen.clear();
  }

  async function noise(control, seconds) {
    const end = Date.now() + 1000 * seconds;
    while (Date.now() < end) {
      say(control);
      await sleep(1 + random(4));
    }
  }

  for (const control of controls) {
    for (let each = 0; each < 8; each++) say(control);
    await settled(control);
  }
  for (let round = 0; totals.throws < Number(throws); round++) {
    const onlyOurs = round % 2 === 0;
    const control = controls[round % controls.length];
    const making = noise(control, onlyOurs ? 0.4 : 0.25);
    await sleep(30 + random(50));
    for (const client of clients) client.go();
    // Node's servers write a session when they have noticed the cut: the cut is before the first mark.
    for (let mark = 0; mark < 2; mark++) await settled(control);
    if (!onlyOurs) {
      await making;
      await settled(control);
    }
    await Promise.all(
      clients.map(async (client) => {
        if (onlyOurs) await sleep(random(60));
        const to = random(onlyOurs ? OURS : urls.length);
        totals.throws++;
        totals[to < OURS ? "toOurs" : "toNode"]++;
        await client.come(to);
      }),
    );
    await making;
    await settled(control);
    say(control);
    await settled(control);
    for (const client of clients) client.check();
    said.length = 0;
    for (const client of clients) client.begin();
  }
  report({ totals });
  process.exit(0);
}

main();
