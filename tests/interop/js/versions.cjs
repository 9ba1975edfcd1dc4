// What a JavaScript client of any version asks of the server in tests/interop/app.py, step by step.
//
//     node versions.cjs PACKAGE polling|websocket|upgrade binary|base64|msgpack URL [NAME COUNT]
//
// With a name it only meets COUNT clients in a room. Prints one JSON line a step, {"step", "ok"[, "error"]}. After its
// steps it prints {"ask": "freeze", "id"}, and waits to be frozen and killed; after a meeting it ends by itself.
const assert = require("node:assert").strict;
const { Buffer } = require("node:buffer");

const [packageName, transport, format, url, ownName, count] = process.argv.slice(2);
const io = require(packageName);

const VERSION = Number(packageName.match(/[0-9.]+$/)[0]); // of the client: 1.4 to 4
const SPEAKS = VERSION < 3 ? 3 : 4; // of Engine.IO
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[transport];
const FINAL_TRANSPORT = TRANSPORTS.at(-1);
const TEXT = "Größe € 日本 𝄞";
const NAME = "Zoë & 1/2=½";
const STEP_TIMEOUT = 60_000;
const KEPT_INTERVALS = 3;

const options = { transports: TRANSPORTS, forceNew: true, reconnection: false, forceBase64: format === "base64" };
if (format === "msgpack") options.parser = require("socket.io-msgpack-parser");

const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
const call = (socket, ...args) => new Promise((resolve) => socket.emit(...args, (...answer) => resolve(answer)));
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const range = (length) => Array.from({ length }, (_, index) => index);

// Which class the bytes come in differs by version and transport.
function plain(value) {
  if (value instanceof ArrayBuffer) value = Buffer.from(value);
  if (ArrayBuffer.isView(value)) return { bytes: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object" || value instanceof Date) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}
const same = (actual, expected) => assert.deepEqual(plain(actual), plain(expected));

function collect(emitter, event) {
  const seen = [];
  emitter.on(event, (...args) => seen.push(args.length === 1 ? args[0] : args));
  return seen;
}

async function until(condition) {
  while (!condition()) await pause(2);
}

// Every step closes what it opened through this list, whether it passed or not.
const open = [];

function opening(namespace = "/", more = {}, manager = new io.Manager(url, { ...options, ...more })) {
  const socket = manager.socket(namespace, more);
  open.push(socket);
  return socket;
}

async function settled(socket) {
  if (!socket.connected) {
    const refused = async (event) => Promise.reject(new Error(`refused: ${JSON.stringify(await next(socket, event))}`));
    await Promise.race([next(socket, "connect"), refused("connect_error"), refused("error")]);
  }
  await until(() => socket.io.engine.transport.name === FINAL_TRANSPORT);
  return socket;
}

const opened = (...args) => settled(opening(...args));

// What a namespace says when it does not let this client in: text or data, as the versions have it.
async function refusal(socket) {
  const [reason] = await next(socket, SPEAKS === 3 ? "error" : "connect_error");
  assert.equal(socket.connected, false);
  return reason;
}

// A token for a namespace: in the CONNECT packet, in its query, or for the oldest in the query of the URL.
function withToken(token) {
  if (SPEAKS === 4) return { auth: { token } };
  return { query: VERSION < 1.7 ? { token } : `token=${encodeURIComponent(token)}` };
}

const nested = () => ({ a: Buffer.from([0, 1, 2, 255]), list: [1, { b: Buffer.from(TEXT) }, Buffer.from([4])], none: null });

// Opened before the steps and looked at after them, so that its time passes meanwhile.
let kept;

const steps = {
  "heartbeat begins": async () => {
    const socket = await opened();
    open.splice(0);
    kept = { socket, packets: collect(socket.io.engine, "packet"), gone: collect(socket, "disconnect"), since: Date.now() };
  },

  "connect with query": async () => {
    const socket = await opened("/", { query: { name: NAME } });
    const [{ protocol, query }] = await call(socket, "handshake");
    assert.equal(protocol, SPEAKS);
    assert.equal(query.name, NAME);
  },

  "connect with auth": async () => {
    if (SPEAKS === 3) return; // it has none, but for a namespace: see the next step
    const auth = { token: "abc", name: NAME, list: [1, null, true] };
    same(await call(await opened("/", { auth }), "auth"), [auth]);
  },

  "refusal": async () => {
    const reason = await refusal(opening("/guests"));
    if (SPEAKS === 3) same(reason, { code: 401 });
    else same([reason.message, reason.data], ["who are you?", { code: 401 }]);
    const admitted = await opened("/guests", withToken("open sesame"));
    same(await call(admitted, "echo", "inside"), ["inside"]);

    const unknown = await refusal(opening("/nowhere"));
    assert.equal(unknown.message ?? unknown, "Invalid namespace");
  },

  "acks": async () => {
    const socket = await opened();
    const packets = collect(socket.io.engine, "packet");
    // The first has the id 0, and asks for the server's ack; on its way the server asks for ours.
    same(await call(socket, "echo"), []);
    if (format !== "msgpack") assert.ok(packets.some(({ data }) => data === "30[]"), JSON.stringify(packets));
    same(await call(socket, "echo", 1), [1]);
    const various = [1, "two", null, true, 4.5, ["a", ["b"]], { c: { d: null } }];
    same(await call(socket, "echo", ...various), various);

    socket.on("question", (...args) => args.pop()("answer", ...args));
    same(await call(socket, "ask", "really?", { sure: true }), ["answer", "really?", { sure: true }]);
  },

  "binary": async () => {
    const socket = await opened();
    same(await call(socket, "echo", nested(), Buffer.from([7])), [nested(), Buffer.from([7])]);

    const back = next(socket, "back");
    socket.emit("back", nested(), TEXT, Buffer.from([0]));
    same(await back, [nested(), TEXT, Buffer.from([0])]);

    socket.on("question", (bytes, ack) => ack({ reversed: Buffer.from(bytes).reverse() }, bytes));
    const answer = await call(socket, "ask", Buffer.from([1, 2, 3]));
    same(answer, [{ reversed: Buffer.from([3, 2, 1]) }, Buffer.from([1, 2, 3])]);

    const large = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, index) => (index * 31) % 251));
    same(await call(socket, "echo", { large }), [{ large }]);
  },

  "text": async () => {
    const socket = await opened();
    same(await call(socket, "echo", TEXT, { [TEXT]: TEXT }), [TEXT, { [TEXT]: TEXT }]);
    const back = next(socket, "Grüße");
    socket.emit("Grüße", TEXT, Buffer.from(TEXT));
    same(await back, [TEXT, Buffer.from(TEXT)]);
    // The last one is what double encoding looks like, and is not.
    for (const awkward of ["\u0000\u001e\u2028\\n\n\"\u007f", TEXT.repeat(10_000), "Ã¤"]) {
      same(await call(socket, "echo", awkward), [awkward]);
    }
    // Several to a payload, when they go by polling.
    const numbered = range(30).map((n) => TEXT + n);
    same(await Promise.all(numbered.map((text) => call(socket, "echo", text))), numbered.map((text) => [text]));
  },

  "namespaces": async () => {
    const red = opening("/red");
    const blue = opening("/blue", {}, red.io);
    await Promise.all([settled(red), settled(blue)]);
    const [redHeard, blueHeard] = [collect(red, "here"), collect(blue, "here")];
    same(await call(red, "where", 1), ["/red", 1]);
    same(await call(blue, "where", 2), ["/blue", 2]);
    same([redHeard, blueHeard], [[["/red", 1]], [["/blue", 2]]]);

    const kicked = next(red, "disconnect");
    red.emit("kick me");
    assert.equal((await kicked)[0], "io server disconnect");
    same(await call(blue, "where", 3), ["/blue", 3]);
    assert.equal(red.io.engine, blue.io.engine);
  },

  "disconnect by the server": async () => {
    for (const event of ["kick me", "hang up"]) {
      const socket = await opened();
      socket.emit(event);
      assert.equal((await next(socket, "disconnect"))[0], "io server disconnect");
    }
  },

  "disconnect by the client": async () => {
    const [witness, polite, abrupt] = await Promise.all([opened(), opened(), opened()]);
    const politeId = await ownId(polite);
    polite.disconnect();
    same(await call(witness, "farewell", politeId), ["client namespace disconnect"]);

    const abruptId = await ownId(abrupt);
    abrupt.io.engine.close();
    same(await call(witness, "farewell", abruptId), ["transport close"]);
  },

  "events in order": async () => {
    const socket = await opened();
    const seen = collect(socket, "number");
    for (const n of range(300)) socket.emit("number", n);
    same(await call(socket, "numbers"), [range(300)]);
    same(seen, range(300));
  },

  "messages during the upgrade": async () => {
    for (const round of range(5)) {
      const socket = opening();
      const [ticks, numbers] = [collect(socket, "tick"), collect(socket, "number")];
      upgradeLater(socket.io.engine, round * 3);
      await next(socket, "connect");
      assert.equal(socket.io.engine.transport.name, "polling");
      let sent = 0;
      const send = () => socket.emit("number", sent++);
      socket.emit("start ticking");
      while (socket.io.engine.transport.name === "polling") {
        assert.ok(socket.connected, `round ${round}: disconnected after ${sent} messages`);
        for (const _ of range(1 + (round % 4))) send();
        await pause(1);
      }
      for (const _ of range(50)) send();
      const [ticked] = await call(socket, "stop ticking");
      same(await call(socket, "numbers"), [range(sent)]);
      same([numbers, ticks], [range(sent), range(ticked)]);
      socket.disconnect();
    }
  },

  "dates and undefined": async () => {
    // What the msgpack parser has beyond JSON.
    const socket = await opened();
    const [date, missing] = [new Date(1_500_000_000_123), undefined];
    const [answer] = await call(socket, "echo", { date, missing, in: [missing, 1] });
    assert.equal(answer.date.getTime(), date.getTime());
    // None, in Python, and null when it comes back.
    same(answer.in, [null, 1]);
    same(answer.missing ?? null, null);
  },

  "heartbeat": async () => {
    const { socket, packets, gone, since } = kept;
    const { pingInterval, pingTimeout } = handshakeOf(socket);
    const beat = SPEAKS === 3 ? "pong" : "ping";
    await until(() => packets.filter(({ type }) => type === beat).length >= KEPT_INTERVALS || gone.length);
    // Bytes in base64 have the heartbeat of others, whose time is long enough for slow machines.
    if (format !== "base64") await pause(since + pingInterval + pingTimeout + 300 - Date.now());
    same(gone, []);
    same(await call(socket, "echo", "alive"), ["alive"]);
  },
};
if (transport !== "upgrade") delete steps["messages during the upgrade"];
if (format !== "msgpack") delete steps["dates and undefined"];

// The server's name for this client's socket: version 3 knows it by other names than the server.
async function ownId(socket) {
  return (await call(socket, "id"))[0];
}

// What the open packet said, which the clients keep under names of their own.
function handshakeOf({ io: { engine } }) {
  return { pingInterval: engine.pingInterval ?? engine._pingInterval, pingTimeout: engine.pingTimeout ?? engine._pingTimeout };
}

// Left alone, the client of version 4 upgrades before it joins a namespace: nothing would be under way to lose.
function upgradeLater(engine, delay) {
  const name = engine._probe ? "_probe" : "probe";
  const probe = engine[name];
  const joined = next(engine, "data");
  engine[name] = (...args) => joined.then(() => setTimeout(() => probe.apply(engine, args), delay));
}

// Clients of all versions in one room: each tells the others something, and hears all of them.
async function meet() {
  const socket = await opened();
  const heard = collect(socket, "heard");
  const complete = next(socket, "complete");
  await call(socket, "gather", "meeting", Number(count));
  await complete;
  const words = (from) => ({ from, text: TEXT, bytes: Buffer.from(from), deep: [{ bytes: Buffer.from(TEXT) }] });
  await call(socket, "tell room", "meeting", words(ownName));
  await until(() => heard.length >= count);
  const names = heard.map(({ from }) => from).sort();
  assert.equal(new Set(names).size, Number(count));
  for (const said of heard) same(said, words(said.from));
  report({ heard: names });
  // Who hung up now would not be there for those who have not heard all yet: they do not care.
  socket.disconnect();
}

function limited(promise) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${STEP_TIMEOUT} ms`)), STEP_TIMEOUT);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}

async function attempt(step, run) {
  try {
    await limited(run());
    report({ step, ok: true });
  } catch (error) {
    process.exitCode = 1;
    report({ step, ok: false, error: error.stack ?? String(error) });
  }
  for (const socket of open.splice(0)) socket.disconnect();
}

async function main() {
  if (count) {
    await attempt("meet", meet);
    return setTimeout(() => process.exit(), 200);
  }
  for (const [step, run] of Object.entries(steps)) await attempt(step, run);
  const socket = await opened();
  open.splice(0);
  report({ ask: "freeze", id: await ownId(socket) });
}

main();
