// The application of app.py on Node's socket.io: node server.cjs PACKAGE PORT MAX_PAYLOAD
const path = require("node:path");

const [packageName, port, maxPayload] = process.argv.slice(2);
const { Server } = require(path.join(__dirname, "../interop/node_modules", packageName));

const io = new Server(Number(port), {
  maxHttpBufferSize: Number(maxPayload),
  pingInterval: 25_000,
  pingTimeout: 20_000,
  serveClient: false,
  allowEIO3: true,
});

function talk(namespace) {
  namespace.on("connection", (socket) => {
    const answer = (name, work) =>
      socket.on(name, (...args) => {
        const ack = typeof args.at(-1) === "function" ? args.pop() : () => {};
        work(ack, ...args);
      });
    answer("barrier", (ack, number) => ack(number));
    answer("echo", (ack, ...args) => ack(...args));
    answer("back", (ack, ...args) => (socket.emit("back", ...args), ack()));
    answer("nothing", (ack) => ack());
    answer("1", (ack) => ack("one"));
    answer("auth", (ack) => ack(socket.handshake.auth));
    answer("join", (ack, room) => (socket.join(room), ack("in")));
    answer("leave", (ack, room) => (socket.leave(room), ack("out")));
    answer("rooms", (ack) => ack([...socket.rooms].filter((room) => room !== socket.id).sort()));
    answer("room", (ack, room, ...args) => (namespace.to(room).emit("heard", ...args), ack()));
    answer("room's others", (ack, room, ...args) => (socket.to(room).emit("heard", ...args), ack()));
    answer("others", (ack, ...args) => (socket.broadcast.emit("heard", ...args), ack()));
    answer("everyone", (ack, ...args) => (namespace.emit("heard", ...args), ack()));
    answer("except", (ack, room, ...args) => (namespace.except(room).emit("heard", ...args), ack()));
    answer("ask", (ack, ...args) => {
      socket.emit("question", ...args, (...answers) => socket.emit("answered", ...answers));
      ack();
    });
    answer("bye", () => socket.disconnect());
    answer("hang up", () => socket.disconnect(true));
  });
}

const members = io.of("/members");
members.use((socket, next) => {
  if (socket.handshake.auth.token === "open sesame") return next();
  const error = new Error("who are you?");
  error.data = { code: 401 };
  next(error);
});
for (const namespace of [io.of("/"), io.of("/chat"), members]) talk(namespace);
console.log("listening");
