// A server of a cluster with Socket.IO's own admin UI, beside ours:
//
//     node admin.cjs PORT redis://127.0.0.1:PORT
const { createServer } = require("node:http");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");
const { instrument } = require("@socket.io/admin-ui");

const [port, url] = process.argv.slice(2);

async function main() {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) client.on("error", () => {});
  await Promise.all([publisher.connect(), subscriber.connect()]);

  const http = createServer();
  const io = new Server(http, { adapter: createAdapter(publisher, subscriber) });
  instrument(io, { auth: false, mode: "development", serverId: "node" });
  io.on("connection", (socket) => {
    socket.data.name = socket.handshake.auth.name;
    socket.join("lobby");
  });
  http.listen(Number(port), "127.0.0.1");
}

main();
