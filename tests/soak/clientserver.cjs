// Numbered messages both ways, for tests/interop/test_client_network.py: node clientserver.cjs PORT [recovery]
//
// Each client says who it is in `auth.key`. What it sends as `up` is checked here, what it gets as `down` is
// checked there: an era begins with each connection that was not recovered, and its numbers with 0.
//
// A recovered socket has the id of the one before. If that one is still open here, because its connection was
// swallowed, its end takes the new one out of all rooms (Namespace._remove and Adapter.delAll go by the id), and nothing
// can be replayed: an era begins then too, and with the connection after it.
const path = require("node:path");
const { Server } = require(path.join(__dirname, "../interop/node_modules/socket.io"));

const [port, recovery] = process.argv.slice(2);
const io = new Server(Number(port), {
  pingInterval: 2000,
  pingTimeout: 2000,
  serveClient: false,
  ...(recovery ? { connectionStateRecovery: { maxDisconnectionDuration: 120_000 } } : {}),
});

const clients = new Map();
const sockets = new Map();

io.on("connection", (socket) => {
  const { key } = socket.handshake.auth;
  if (!clients.has(key)) {
    clients.set(key, { last: -1, came: 0, missing: 0, repeated: 0, backwards: 0, era: -1, next: 0, recovered: 0, overlaps: 0 });
  }
  const client = clients.get(key);
  const former = sockets.get(key);
  const overlaps = socket.recovered && former?.connected;
  if (socket.recovered) client.recovered++;
  if (!socket.recovered || overlaps || client.doubtful) {
    client.era++;
    client.next = 0;
  }
  client.doubtful = overlaps;
  if (overlaps) {
    client.overlaps++;
    former.once("disconnect", () => socket.conn.close());
  }
  sockets.set(key, socket);
  socket.join(key);
  socket.on("up", (number, ack) => {
    client.came++;
    if (number < client.last) client.backwards++;
    else if (number === client.last) client.repeated++;
    else client.missing += number - client.last - 1;
    client.last = Math.max(client.last, number);
    if (ack) ack(number);
  });
  socket.on("state", (ack) => ack(client));
});

// The recovery of socket.io replays what went to rooms while a client was away.
const sending = setInterval(() => {
  for (const [key, client] of clients) io.to(key).emit("down", client.era, client.next++);
}, 50);

process.on("SIGINT", () => clearInterval(sending));
