// Two clients of one server, one on each transport: what each gets, and what happens when the server goes.
//
//     node worker.cjs http://127.0.0.1:PORT
//
// Prints JSON lines: {"at": transport, "who"} at each connection, {"at", "heard"}, {"at", "gone": reason}.
const { io } = require("socket.io-client-4");

const url = process.argv[2];
const print = (value) => console.log(JSON.stringify(value));

for (const at of ["polling", "websocket"]) {
  const socket = io(url, { transports: [at], forceNew: true, reconnectionDelay: 100, rejectUnauthorized: false });
  socket.on("connect", () => socket.emit("who", (who) => print({ at, who })));
  socket.on("disconnect", (gone) => print({ at, gone }));
  socket.on("said", (heard) => print({ at, heard }));
}
