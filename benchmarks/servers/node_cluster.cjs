// The application on Node's Socket.IO in WORKERS processes: @socket.io/sticky in the first one, which accepts, and
// @socket.io/cluster-adapter between the others.
const cluster = require("cluster");
const { createServer } = require("http");
const { createRequire } = require("module");
const installed = createRequire(process.env.MODULES + "/");
const { createAdapter, setupPrimary } = installed("@socket.io/cluster-adapter");
const { setupMaster, setupWorker } = installed("@socket.io/sticky");

const { PORT, WORKERS } = process.env;

if (cluster.isPrimary) {
  const server = createServer();
  setupMaster(server, { loadBalancingMethod: "least-connection" });
  setupPrimary();
  // sticky sends the first bytes of a connection as a Buffer.
  cluster.setupPrimary({ serialization: "advanced" });
  let ready = 0;
  cluster.on("message", (_, message) => {
    if (message === "ready" && ++ready === Number(WORKERS)) {
      server.listen(Number(PORT), "127.0.0.1", 1024, () => console.log("serving Socket.IO at", PORT));
    }
  });
  for (let number = 0; number < Number(WORKERS); number++) cluster.fork();
} else {
  const { Server } = installed("socket.io");
  const io = new Server(createServer(), {
    wsEngine: installed("ws").Server,
    perMessageDeflate: false,
    httpCompression: false,
    serveClient: false,
  });
  io.adapter(createAdapter());
  setupWorker(io);
  io.on("connection", (socket) => {
    socket.on("echo", (payload, answer) => answer(payload));
    socket.on("broadcast", (payload) => io.emit("news", payload));
  });
  process.send("ready");
}
