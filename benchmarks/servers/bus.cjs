// A Socket.IO server on Node with one of its adapters for Redis: node bus.cjs PORT REDIS_PORT streams|pubsub
const { createServer } = require("node:http");
const { Server } = require("socket.io");
const { createClient } = require("redis");

const [port, redis, kind] = process.argv.slice(2);

async function main() {
  const client = createClient({ url: `redis://127.0.0.1:${redis}` });
  await client.connect();
  let adapter;
  if (kind === "streams") {
    adapter = require("@socket.io/redis-streams-adapter").createAdapter(client, { maxLen: 100000 });
  } else {
    const subscriber = client.duplicate();
    await subscriber.connect();
    adapter = require("@socket.io/redis-adapter").createAdapter(client, subscriber);
  }
  const http = createServer();
  const io = new Server(http, { adapter });
  io.on("connection", (socket) => {
    socket.on("enter", (ack) => { socket.join("red"); ack(); });
    socket.on("go", (count, text, ack) => {
      for (let n = 0; n < count; n++) io.to("red").emit("news", text);
      ack();
    });
  });
  http.listen(Number(port), "127.0.0.1", () => console.log("up"));
}
main();
