// What @socket.io/redis-emitter emits: see py/emitters.py.
//
//     node emitter.cjs redis://127.0.0.1:PORT ID ID
const { Buffer } = require("node:buffer");
const { createClient } = require("redis");
const { Emitter } = require("@socket.io/redis-emitter");

const [url, first, second] = process.argv.slice(2);

async function main() {
  const client = createClient({ url });
  await client.connect();
  const emitter = new Emitter(client);
  emitter.emit("one", 1, { a: null });
  emitter.to("all").except(first).emit("two");
  emitter.to("room 0").emit("three", Buffer.from([0, 255]));
  emitter.in(second).socketsJoin("late");
  emitter.to("late").emit("four");
  emitter.of("/other").emit("never");
  emitter.serverSideEmit("news", "from the emitter");
  emitter.emit("end");
  emitter.in(second).disconnectSockets();
  await client.close();
}

main();
