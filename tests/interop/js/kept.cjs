// A client whose connection ends at the moment at which an event has come:
//
//     node kept.cjs URL
//
// The client keeps this event until its next CONNECT, and does not tell the server that it has it.  Prints a JSON line of the
// events by their numbers, how often each came.
const { io } = require("../node_modules/socket.io-client-4");

const socket = io(process.argv[2], { transports: ["websocket"], reconnectionDelay: 50, reconnectionDelayMax: 50 });
const came = {};

socket.once("begin", () => {
  // Behind the manager's own listener, which hands an event on in the next turn.
  socket.io.engine.on("data", (data) => {
    if (typeof data === "string" && data.startsWith('2["all"')) socket.io.engine.close();
  });
});
socket.on("all", (number) => (came[number] = (came[number] || 0) + 1));
socket.on("connect", () => {
  if (!socket.recovered) return;
  setTimeout(() => {
    console.log(JSON.stringify({ came }));
    process.exit(0);
  }, 1000);
});
