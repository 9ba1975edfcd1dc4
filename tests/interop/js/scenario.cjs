// What a JavaScript client asks of the server in tests/interop/app.py, step by step.
//
//     node scenario.cjs socket.io-client-4|socket.io-client-3 polling|websocket|upgrade http://127.0.0.1:PORT
//
// Prints one JSON line a step, {"step", "ok"[, "error"]}, and {"ask": "restart"} when it wants the server restarted.
const assert = require("node:assert").strict;
const { Buffer } = require("node:buffer");

const [packageName, transport, url] = process.argv.slice(2);
const { io, Manager } = require(packageName);

const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] }[transport];
const FINAL_TRANSPORT = TRANSPORTS.at(-1);
const AUTH = { token: "abc", name: "Zoë", nested: { list: [1, null, true] } };
const TEXT = "Größe € 日本 𝄞";
const MEGABYTE = Buffer.from(Uint8Array.from({ length: 1_000_000 }, (_, index) => (index * 31) % 251));
const STEP_TIMEOUT = 60_000;

// A browser says where its page came from: from the server itself, or from the proxy before it.
const extraHeaders = { Origin: url };
const options = { transports: TRANSPORTS, forceNew: true, reconnection: false, extraHeaders };
const report = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
const call = (socket, event, ...args) => new Promise((resolve) => socket.emit(event, ...args, (...answer) => resolve(answer)));
const count = (length) => Array.from({ length }, (_, index) => index);

function collect(socket, event) {
  const seen = [];
  socket.on(event, (...args) => seen.push(args.length === 1 ? args[0] : args));
  return seen;
}

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

async function settled(socket) {
  if (!socket.connected) {
    await Promise.race([next(socket, "connect"), next(socket, "connect_error").then(([error]) => Promise.reject(error))]);
  }
  await until(() => socket.io.engine.transport.name === FINAL_TRANSPORT);
  return socket;
}

const connect = (more = {}) => settled(io(url, { ...options, ...more }));

// Left alone, the client upgrades before it joins a namespace: nothing would be under way to lose.
function upgradeLater(engine, delay) {
  const name = engine._probe ? "_probe" : "probe";
  const probe = engine[name];
  const joined = next(engine, "data");
  engine[name] = (...args) => joined.then(() => setTimeout(() => probe.apply(engine, args), delay));
}

// Every step below closes what it opened through this list, whether it passed or not.
const open = [];
async function opened(more) {
  const socket = await connect(more);
  open.push(socket);
  return socket;
}

const steps = {
  "connect with auth": async () => {
    const socket = await opened({ auth: AUTH });
    assert.deepEqual(await call(socket, "auth"), [AUTH]);
  },

  "refusal with data": async () => {
    const manager = new Manager(url, options);
    const socket = manager.socket("/members", { auth: { token: "wrong" } });
    open.push(socket);
    const [error] = await next(socket, "connect_error");
    assert.equal(error.message, "who are you?");
    assert.deepEqual(error.data, { code: 401 });
    assert.equal(socket.connected, false);
    socket.auth = { token: "open sesame" };
    socket.connect();
    await settled(socket);
    assert.deepEqual(await call(socket, "echo", "inside"), ["inside"]);

    const nowhere = manager.socket("/nowhere");
    open.push(nowhere);
    const [unknown] = await next(nowhere, "connect_error");
    assert.equal(unknown.message, "Invalid namespace");
  },

  "ack from the server": async () => {
    const socket = await opened();
    assert.deepEqual(await call(socket, "echo"), []);
    assert.deepEqual(await call(socket, "echo", 1), [1]);
    const various = [1, "two", null, true, 4.5, ["a", ["b"]], { c: { d: null } }];
    assert.deepEqual(await call(socket, "echo", ...various), various);
  },

  "ack from the client": async () => {
    const socket = await opened();
    socket.on("question", (...args) => args.pop()("answer", ...args));
    assert.deepEqual(await call(socket, "ask", "really?", { sure: true }), ["answer", "really?", { sure: true }]);
  },

  "binary both ways": async () => {
    const socket = await opened();
    const nested = { a: Buffer.from([0, 1, 2, 255]), list: [1, { b: Buffer.from("zwei") }, Buffer.from([30])], none: null };
    assert.deepEqual(await call(socket, "echo", nested, Buffer.from([7])), [nested, Buffer.from([7])]);

    const back = next(socket, "back");
    socket.emit("back", nested, "text", Buffer.alloc(0));
    assert.deepEqual(await back, [nested, "text", Buffer.alloc(0)]);

    socket.on("question", (bytes, ack) => ack({ reversed: Buffer.from(bytes).reverse() }, bytes));
    const answer = await call(socket, "ask", Buffer.from([1, 2, 3]));
    assert.deepEqual(answer, [{ reversed: Buffer.from([3, 2, 1]) }, Buffer.from([1, 2, 3])]);
  },

  "1 MB each way": async () => {
    const socket = await opened();
    const [{ file }] = await call(socket, "echo", { file: MEGABYTE });
    assert.ok(MEGABYTE.equals(file));
    const text = TEXT.repeat(80_000);
    const [echoed] = await call(socket, "echo", text);
    assert.ok(text === echoed);
  },

  "namespaces": async () => {
    const manager = new Manager(url, options);
    const [red, blue] = [manager.socket("/red"), manager.socket("/blue")];
    open.push(red, blue);
    await Promise.all([settled(red), settled(blue)]);
    assert.notEqual(red.id, blue.id);
    const [redHeard, blueHeard] = [collect(red, "here"), collect(blue, "here")];
    assert.deepEqual(await call(red, "where", 1), ["/red", 1]);
    assert.deepEqual(await call(blue, "where", 2), ["/blue", 2]);
    assert.deepEqual([redHeard, blueHeard], [[["/red", 1]], [["/blue", 2]]]);

    const kicked = next(red, "disconnect");
    red.emit("kick me");
    assert.equal((await kicked)[0], "io server disconnect");
    assert.deepEqual(await call(blue, "where", 3), ["/blue", 3]);
    red.connect();
    await settled(red);
    assert.deepEqual(await call(red, "where", 4), ["/red", 4]);
    assert.equal(red.io.engine, blue.io.engine);
  },

  "rooms": async () => {
    const [ada, bob, cyd] = await Promise.all([opened(), opened(), opened()]);
    const heard = [ada, bob, cyd].map((socket) => collect(socket, "heard"));
    // The answer to an event sent after the emit: what was emitted to this client is here by then.
    const tell = async (socket, ...args) => {
      await call(socket, ...args);
      await Promise.all([ada, bob, cyd].map((each) => call(each, "echo")));
      return heard.map((list) => list.splice(0));
    };
    await call(ada, "join", "team");
    await call(bob, "join", "team");
    await call(bob, "join", "muted");
    assert.deepEqual(await tell(cyd, "tell room", "team", "members"), [["members"], ["members"], []]);
    assert.deepEqual(await tell(ada, "tell room", "team", "me too"), [["me too"], ["me too"], []]);
    assert.deepEqual(await tell(ada, "tell room's others", "team", "not me"), [[], ["not me"], []]);
    assert.deepEqual(await tell(cyd, "tell room except", "team", "muted", "unmuted"), [["unmuted"], [], []]);
    assert.deepEqual(await tell(cyd, "tell room", bob.id, "private"), [[], ["private"], []]);

    ada.on("question", (text, ack) => ack(`ada: ${text}`));
    bob.on("question", (text, ack) => ack(`bob: ${text}`));
    const [answers] = await call(cyd, "ask room", "team", "ready?");
    assert.deepEqual(answers.sort(), ["ada: ready?", "bob: ready?"]);

    await call(ada, "leave", "team");
    assert.deepEqual(await tell(cyd, "tell room", "team", "ada left"), [[], ["ada left"], []]);
    const bobId = bob.id;
    bob.disconnect();
    await call(cyd, "farewell", bobId);
    assert.deepEqual(await call(cyd, "ask room", "team", "anyone?"), [[]]);
  },

  "broadcast": async () => {
    const sockets = await Promise.all([opened(), opened(), opened()]);
    const heard = sockets.map((socket) => collect(socket, "heard"));
    await call(sockets[0], "tell everyone", { bytes: Buffer.from("all") });
    await call(sockets[0], "tell others", "others");
    await Promise.all(sockets.map((socket) => call(socket, "echo")));
    const all = { bytes: Buffer.from("all") };
    assert.deepEqual(heard, [[all], [all, "others"], [all, "others"]]);
  },

  "text": async () => {
    const socket = await opened();
    assert.deepEqual(await call(socket, "echo", TEXT, { [TEXT]: TEXT }), [TEXT, { [TEXT]: TEXT }]);
    const back = next(socket, "Grüße");
    socket.emit("Grüße", TEXT, Buffer.from(TEXT));
    assert.deepEqual(await back, [TEXT, Buffer.from(TEXT)]);
    const awkward = "\u0000\u001e\u2028\\n\n\"\u007f";
    assert.deepEqual(await call(socket, "echo", awkward), [awkward]);
  },

  "1000 events in order": async () => {
    const socket = await opened();
    const seen = collect(socket, "number");
    for (const n of count(1000)) socket.emit("number", n);
    assert.deepEqual(await call(socket, "numbers"), [count(1000)]);
    assert.deepEqual(seen, count(1000));
  },

  "disconnect by the server": async () => {
    for (const event of ["kick me", "hang up"]) {
      const socket = await opened();
      socket.emit(event);
      assert.equal((await next(socket, "disconnect"))[0], "io server disconnect");
    }
  },

  "disconnect by the client": async () => {
    const witness = await opened();
    const polite = await opened();
    const politeId = polite.id;
    polite.disconnect();
    assert.deepEqual(await call(witness, "farewell", politeId), ["client namespace disconnect"]);

    const abrupt = await opened();
    const abruptId = abrupt.id;
    abrupt.io.engine.close();
    assert.deepEqual(await call(witness, "farewell", abruptId), ["transport close"]);
  },

  "heartbeat": async () => {
    const socket = await opened();
    const packets = collect(socket.io.engine, "packet");
    await until(() => packets.filter(({ type }) => type === "ping").length >= 3);
    assert.deepEqual(await call(socket, "echo", "alive"), ["alive"]);
  },

  "messages during the upgrade": async () => {
    for (const round of count(20)) {
      const socket = io(url, options);
      open.push(socket);
      const [ticks, numbers] = [collect(socket, "tick"), collect(socket, "number")];
      upgradeLater(socket.io.engine, round);
      await next(socket, "connect");
      assert.equal(socket.io.engine.transport.name, "polling");
      let sent = 0;
      const send = () => socket.emit("number", sent++);
      socket.emit("start ticking");
      while (socket.io.engine.transport.name === "polling") {
        assert.ok(socket.connected, `round ${round}: disconnected after ${sent} messages`);
        for (const _ of count(1 + (round % 4))) send();
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      for (let more = 0; more < 50; more++) send();
      const [ticked] = await call(socket, "stop ticking");
      assert.deepEqual(await call(socket, "numbers"), [count(sent)]);
      assert.deepEqual(numbers, count(sent));
      assert.deepEqual(ticks, count(ticked));
      socket.disconnect();
    }
  },

  "reconnect after a restart": async () => {
    const socket = await opened({ auth: AUTH, reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
    const formerId = socket.id;
    const gone = next(socket, "disconnect");
    report({ ask: "restart" });
    const [reason] = await gone;
    assert.notEqual(reason, "io server disconnect"); // the client would not come back by itself
    const answer = call(socket, "echo", "sent while away");
    await next(socket, "connect");
    assert.deepEqual(await answer, ["sent while away"]);
    await settled(socket);
    assert.notEqual(socket.id, formerId);
    assert.deepEqual(await call(socket, "auth"), [AUTH]);
  },
};
if (transport !== "upgrade") delete steps["messages during the upgrade"];

function limited(promise) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${STEP_TIMEOUT} ms`)), STEP_TIMEOUT);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}

async function main() {
  let failures = 0;
  for (const [step, run] of Object.entries(steps)) {
    try {
      await limited(run());
      report({ step, ok: true });
    } catch (error) {
      failures++;
      report({ step, ok: false, error: error.stack ?? String(error) });
    }
    for (const socket of open.splice(0)) {
      socket.io.reconnection(false);
      socket.disconnect();
    }
  }
  process.exitCode = failures ? 1 : 0;
}

main().then(() => setTimeout(() => process.exit(), 100));
