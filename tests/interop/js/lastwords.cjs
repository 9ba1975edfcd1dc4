// Clients whose connections end in many ways: node lastwords.cjs PACKAGE URL SLOW CELL...
//
// A cell is END:TRANSPORT.  All clients are connected before the first connection ends.  If SLOW is "slow", the process then
// does nothing for a second, in the middle of which the server does what ends connections.  In the end it writes all that the clients have heard, by cell; that a server stops, it awaits.
const path = require("node:path");

const [packageName, url, slow, ...cells] = process.argv.slice(2);
const io = require(path.join(__dirname, "../node_modules", packageName));

const LARGE = "x".repeat(150_000);
const SETTLED = 2000; // milliseconds without anything new
const LONGEST = 90_000;
const heard = {};
let last = Date.now();

function client(cell) {
  const [end, transport] = cell.split(":");
  heard[cell] = [];
  const hear = (what) => (heard[cell].push(what), (last = Date.now()));
  const options = { transports: [transport], query: { name: `${process.env.NAME}:${cell}` } };
  const socket = io(url, { ...options, forceNew: true, reconnection: false });
  socket.on("note", (number) => hear(`note ${number}`));
  socket.on("flood", () => (last = Date.now()));
  socket.on("disconnect", (reason) => hear(`disconnect: ${reason}`));
  return new Promise((resolve) => socket.on("connect", () => resolve(() => begin(socket, end, hear))));
}

function begin(socket, end, hear) {
  const notes = () => [0, 1, 2].forEach((number) => socket.emit("note", number));
  if (end === "close" || end === "leave" || end === "flood") socket.emit("end", end, slow === "slow" ? 0.5 : 0);
  else if (end === "client closes") notes(), socket.disconnect();
  else if (end === "violation") notes(), socket.io.engine.write("x");
  else if (end === "too large") {
    notes();
    // Not in one request with the numbers, which the server would refuse with it.
    const timer = setInterval(() => {
      if (socket.io.engine.writeBuffer.length) return;
      clearInterval(timer);
      socket.emit("note", 3, LARGE);
    }, 1500);
  }
  else if (end === "refused") {
    const closed = socket.io.socket("/closed");
    const event = packageName.endsWith("-4") ? "connect_error" : "error";
    closed.on(event, (error) => hear(`refused: ${error.message ?? error}`));
  }
}

(async () => {
  const begins = await Promise.all(cells.map(client));
  begins.forEach((begin) => begin());
  last = Date.now();
  const stops = cells.some((cell) => cell.startsWith("stop:"));
  if (stops) {
    console.log("READY");
    last += 15_000;
  }
  // Shorter than the time that a server which stops gives its polling clients.
  if (slow === "slow") setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000), 20);
  // Each has an end; after the last one nothing more may come.
  const began = Date.now();
  const ended = () => cells.every((cell) => heard[cell].some((word) => word.includes(": ")));
  const timer = setInterval(() => {
    if ((Date.now() - last < SETTLED || !ended()) && Date.now() - began < LONGEST) return;
    clearInterval(timer);
    console.log("RESULT", JSON.stringify(heard));
    setTimeout(() => process.exit(), 50);
  }, 50);
})();
