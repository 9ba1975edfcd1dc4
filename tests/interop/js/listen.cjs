// Clients that print what they get, one on each server: `CLIENT [EVENT, ARGUMENT...]`, and `CLIENT gone`.
//
//     node listen.cjs http://127.0.0.1:PORT...
//
// Each is in the room `all` and in one of its own, `room 0`, `room 1`... The first line has their ids.
const { Buffer } = require("node:buffer");
const { io } = require("socket.io-client-4");

const shown = (value) => (Buffer.isBuffer(value) ? `<${value.toString("hex")}>` : value);
const sockets = process.argv.slice(2).map((url, number) => {
  const socket = io(url, { transports: ["websocket"], forceNew: true, reconnection: false, auth: { number } });
  socket.onAny((...event) => console.log(number, JSON.stringify(event.map(shown))));
  return socket;
});

async function main() {
  for (const [number, socket] of sockets.entries()) {
    if (!socket.connected) await new Promise((resolve) => socket.once("connect", resolve));
    socket.on("disconnect", () => console.log(number, "gone"));
    await socket.emitWithAck("do", { op: "enter", names: ["all", `room ${number}`] });
  }
  console.log("ids", ...sockets.map((socket) => socket.id));
}

main();
