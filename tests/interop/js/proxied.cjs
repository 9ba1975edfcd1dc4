// What a browser's client finds behind a proxy: one connection by each transport, and pages that must be refused.
//
//     node proxied.cjs URL ADDRESS ORIGIN [HEADERS]
//
// ADDRESS: the client's own. ORIGIN: the page's. HEADERS: of the requests, JSON {"polling": {...}, "websocket": {...}}.
// Prints one JSON line: {"polling", "websocket"[, "upgrade"], "foreign": {"polling", "websocket"}, "cookie"}.
// NODE_EXTRA_CA_CERTS names the authority of the proxy's certificate.
const { io } = require("socket.io-client-4");

const [url, localAddress, page, given] = process.argv.slice(2);
const headers = given ? JSON.parse(given) : { polling: {}, websocket: {} };
const http = require(url.startsWith("https") ? "node:https" : "node:http");
const TEXT = "Größe € ".repeat(1000);
const BYTES = Buffer.alloc(20_000, 7);

function open(transports, origin) {
  const extraHeaders = { Origin: origin, ...headers[transports[0]] };
  const agent = new http.Agent({ localAddress, keepAlive: true });
  const ca = http.globalAgent.options.ca;
  return io(url, { transports, extraHeaders, agent, ca, forceNew: true, reconnection: false });
}

const settled = (socket) => new Promise((resolve, reject) => {
  socket.on("connect", () => resolve(socket));
  socket.on("connect_error", reject);
});

async function accepted(transports) {
  const socket = await settled(open(transports, page));
  const engine = socket.io.engine;
  while (engine.transport.name !== transports.at(-1)) await new Promise((resolve) => setTimeout(resolve, 5));
  const call = (...args) => new Promise((resolve) => socket.emit(...args, (...answer) => resolve(answer)));
  const [text, bytes] = await call("echo", TEXT, BYTES);
  if (text !== TEXT || !BYTES.equals(bytes)) throw new Error("another echo");
  const [seen] = await call("seen");
  const left = new Promise((resolve) => engine.once("close", resolve));
  socket.disconnect();
  await left;
  return seen;
}

// The status of the refusal: XHR has it as such, the WebSocket in a message.
async function refused(transport) {
  try {
    (await settled(open([transport], "https://evil.example"))).disconnect();
    return "accepted";
  } catch (error) {
    const { description } = error;
    return typeof description === "number" ? description : Number(/\d{3}/.exec(description?.message)?.[0]) || String(error);
  }
}

const cookie = () => new Promise((resolve, reject) => {
  const extra = { Origin: page, ...headers.polling };
  http.get(`${url}/socket.io/?EIO=4&transport=polling`, { headers: extra, localAddress }, (response) => {
    response.resume();
    resolve((response.headers["set-cookie"] ?? []).map((text) => text.replace(/=[^;]*/, "=SID")));
  }).on("error", reject);
});

async function main() {
  const report = { polling: await accepted(["polling"]), websocket: await accepted(["websocket"]) };
  if (!given) report.upgrade = await accepted(["polling", "websocket"]);
  report.foreign = { polling: await refused("polling"), websocket: await refused("websocket") };
  report.cookie = await cookie();
  console.log(JSON.stringify(report));
  process.exit();
}

main();
