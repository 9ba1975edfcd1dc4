// The application on Node's Socket.IO; ENGINE names the WebSocket server below it, KEY and CERT make it TLS, and
// BUS is the URL of a Redis that connects it with others.
const { readFileSync } = require("fs");
const { createRequire } = require("module");
const installed = createRequire(process.env.MODULES + "/");
const { Server } = installed("socket.io");

const { PORT, ENGINE, KEY, CERT, BUS } = process.env;
const server = KEY
  ? require("https").createServer({ key: readFileSync(KEY), cert: readFileSync(CERT) })
  : require("http").createServer();
const io = new Server(server, {
  wsEngine: installed(ENGINE).Server,
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

io.on("connection", (socket) => {
  socket.on("echo", (payload, answer) => answer(payload));
  socket.on("join", (room, answer) => {
    socket.join(room);
    answer();
  });
  socket.on("broadcast", (payload) => io.emit("news", payload));
});

async function main() {
  if (BUS) {
    const publisher = installed("redis").createClient({ url: BUS });
    const subscriber = publisher.duplicate();
    await Promise.all([publisher.connect(), subscriber.connect()]);
    io.adapter(installed("@socket.io/redis-adapter").createAdapter(publisher, subscriber));
  }
  server.listen(Number(PORT), "127.0.0.1", 1024);
}

main();
