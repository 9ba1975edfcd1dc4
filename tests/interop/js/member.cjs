// A server of a cluster that does what its clients tell it, as member.py does for ours:
//
//     node member.cjs PORT redis://127.0.0.1:PORT [STREAMS [sharded]]
//
// With STREAMS it has the Streams adapter, over so many streams, and its clients may come back; "sharded" is its option
// useShardedPubSub.
const { createServer } = require("node:http");
const { createClient } = require("redis");
const { Server } = require("socket.io");

const [port, url, streams, sharded] = process.argv.slice(2);

const operations = {
  enter: (io, socket, audience, order) => socket.join(order.names),
  emit: (io, socket, audience, order) => order.each.forEach((args) => audience.emit(order.event, ...args)),
  join: (io, socket, audience, order) => audience.socketsJoin(order.names),
  leave: (io, socket, audience, order) => audience.socketsLeave(order.names),
  disconnect: (io, socket, audience, order) => audience.disconnectSockets(order.close),
  fetch: async (io, socket, audience) =>
    (await audience.fetchSockets()).map((each) => ({
      id: each.id,
      rooms: [...each.rooms].sort(),
      data: each.data,
      address: each.handshake.address,
      auth: each.handshake.auth,
    })),
  rooms: async (io) => [...(await io.of("/").adapter.allRooms())].sort(),
  call: (io, socket, audience, order) =>
    new Promise((resolve) => {
      audience
        .timeout(order.timeout * 1000)
        .emit(order.event, ...order.args, (error, answers) => resolve({ answers, ...(error && { timeout: true }) }));
    }),
  keep: (io, socket, audience, order) => void Object.assign(socket.data, order.data),
  tell: (io, socket, audience, order) => io.serverSideEmit("news", ...order.args),
  ask: (io, socket, audience, order) =>
    new Promise((resolve, reject) => {
      io.serverSideEmit("double", ...order.args, (error, answers) => (error ? reject(error) : resolve(answers)));
    }),
  heard: (io) => io.told,
};

async function main() {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) client.on("error", () => {});
  await Promise.all([publisher.connect(), subscriber.connect()]);

  const http = createServer();
  const adapter = streams
    ? require("@socket.io/redis-streams-adapter").createAdapter(publisher, {
        streamCount: Number(streams),
        useShardedPubSub: sharded === "sharded",
      })
    : require("@socket.io/redis-adapter").createAdapter(publisher, subscriber);
  const io = new Server(http, { adapter, ...(streams && { connectionStateRecovery: {} }) });
  io.told = [];
  io.on("news", (...args) => io.told.push(args));
  io.on("double", (number, answer) => answer(2 * number));
  io.on("connection", (socket) => {
    socket.on("do", async (order, answer) => {
      let audience = io;
      if (order.rooms?.length) audience = audience.to(order.rooms);
      if (order.except?.length) audience = audience.except(order.except);
      try {
        answer(await operations[order.op](io, socket, audience, order));
      } catch (error) {
        answer({ error: String(error) });
      }
    });
  });
  http.listen(Number(port), "127.0.0.1");
}

main();
