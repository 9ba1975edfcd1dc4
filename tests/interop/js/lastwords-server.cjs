// The application of lastwords.py on Node's socket.io: node lastwords-server.cjs PORT MAX_PAYLOAD
const { Server } = require("../node_modules/socket.io");

const [port, maxPayload] = process.argv.slice(2).map(Number);
const io = new Server(port, { maxHttpBufferSize: maxPayload, serveClient: false, allowEIO3: true });

io.on("connection", (socket) => {
  const heard = (what) => console.log("HEARD", JSON.stringify([socket.handshake.query.name, what]));
  socket.on("note", (number) => heard(`note ${number}`));
  const end = (how) => {
    for (let number = 0; number < 3; number += 1) socket.emit("note", number);
    if (how === "close") socket.disconnect(true);
    else if (how === "leave") socket.disconnect();
  };
  socket.on("end", (how, wait) => setTimeout(end, wait * 1000, how));
  socket.on("stop", () => {
    for (let number = 0; number < 3; number += 1) io.emit("note", number);
    io.close();
  });
  socket.on("disconnect", (reason) => heard(`disconnect: ${reason}`));
});
io.of("/closed").use((socket, next) => next(new Error("members only")));
console.log("listening");
