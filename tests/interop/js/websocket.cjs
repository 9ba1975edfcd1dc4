// The WebSocket protocol itself, by the package ws: what a server makes of text, bytes, a megabyte, of subprotocols,
// compression, another version and another origin.
//
//     node websocket.cjs raw|socketio URL ORIGIN [CERTIFICATE]
//
// raw: an echo with the subprotocols echo-v2 and echo-v1. socketio: a Socket.IO server whose event "echo" answers with
// its arguments; this script frames the packets itself. ORIGIN is that of a page that may connect. Prints one JSON line.
const { readFileSync } = require("node:fs");
const WebSocket = require("ws-8");

const [kind, url, origin, certificate] = process.argv.slice(2);
const ca = certificate && readFileSync(certificate);
const MEGABYTE = 1 << 20;

// A connection with its incoming messages; {status, headers, body} when it is refused.
function open(subprotocols, options) {
  const socket = new WebSocket(url, subprotocols, { ca, perMessageDeflate: false, ...options });
  const messages = [], waiting = [];
  socket.on("message", (data, isBinary) => {
    messages.push(isBinary ? data : data.toString());
    if (waiting.length) waiting.shift()();
  });
  const next = async () => {
    if (!messages.length) await new Promise((resolve) => waiting.push(resolve));
    return messages.shift();
  };
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)));
  return new Promise((resolve, reject) => {
    socket.on("open", () => resolve({ socket, next, messages, closed, received: () => socket._socket.bytesRead }));
    socket.on("unexpected-response", (request, response) => {
      let body = "";
      response.on("data", (data) => (body += data));
      response.on("end", () => resolve({ status: response.statusCode, version: response.headers["sec-websocket-version"], body }));
      response.on("error", () => resolve({ status: response.statusCode, body }));
    });
    socket.on("error", reject);
  });
}

// Both kinds: how a connection begins, and how it sends something and gets it back.
const TALKS = {
  raw: {
    async begin() {},
    async echo({ socket, next }, data) {
      socket.send(data);
      return next();
    },
  },
  socketio: {
    async begin({ socket, next }) {
      if ((await next())[0] !== "0") throw new Error("no open packet");
      socket.send("40");
      await next();
    },
    async echo({ socket, next }, data) {
      if (typeof data === "string") {
        socket.send("421" + JSON.stringify(["echo", data]));
        const [answer] = JSON.parse((await next()).replace(/^431/, ""));
        return answer;
      }
      socket.send('451-1["echo",{"_placeholder":true,"num":0}]');
      socket.send(data);
      await next();
      return next();
    },
  },
};

async function main() {
  const { begin, echo } = TALKS[kind];
  const report = {};

  const plain = await open([], { origin });
  await begin(plain);
  report.text = await echo(plain, "Grüße €");
  report.binary = [...(await echo(plain, Buffer.from([0, 255, 128])))];
  const bytes = Buffer.alloc(MEGABYTE);
  for (let index = 0; index < MEGABYTE; index++) bytes[index] = (index * 31 + (index >> 8)) & 255;
  const text = "Größe".repeat(MEGABYTE / 8).slice(0, MEGABYTE / 2);
  report.megabytes = [(await echo(plain, bytes)).equals(bytes), (await echo(plain, text)) === text];
  // In fragments, as another client may send it.
  if (kind === "raw") {
    for (let start = 0; start < MEGABYTE; start += 65536) {
      plain.socket.send(bytes.subarray(start, start + 65536), { fin: start + 65536 === MEGABYTE });
    }
    report.megabytes.push((await plain.next()).equals(bytes));
  }
  report.pong = await new Promise((resolve) => {
    plain.socket.on("pong", (data) => resolve(data.toString()));
    plain.socket.ping("are you there");
  });
  report.left = plain.messages.length;
  report.plain = [plain.socket.protocol, plain.socket.extensions];
  plain.socket.close(1000);
  report.closed = await plain.closed;

  const chosen = await open(["echo-v1", "echo-v2"], { origin });
  report.chosen = chosen.socket.protocol;
  chosen.socket.terminate();
  const unknown = await open(["echo-v9"], { origin }).catch((error) => error);
  report.unknown = unknown.status || unknown.socket.protocol;
  if (unknown.socket) unknown.socket.terminate();

  // ws compresses what is longer than 1024 bytes.
  const deflating = await open([], { origin, perMessageDeflate: true });
  await begin(deflating);
  const before = deflating.received();
  report.deflated = (await echo(deflating, text)) === text;
  report.wire = deflating.received() - before;
  report.extensions = deflating.socket.extensions;
  deflating.socket.terminate();

  report.version = await open([], { origin, protocolVersion: 8 });
  report.origin = await open([], { origin: "https://elsewhere.example" });
  console.log(JSON.stringify(report));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
