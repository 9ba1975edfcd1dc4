// The application of clientapp.py on Node's socket.io: node clientserver.cjs PORT
const path = require("node:path");

const { Server } = require(path.join(__dirname, "../node_modules/socket.io"));
const msgpack = require(path.join(__dirname, "../node_modules/socket.io-msgpack-parser"));

const [port, parser, recovery] = process.argv.slice(2);
const io = new Server(Number(port), {
  pingInterval: 2000,
  pingTimeout: 10000,
  serveClient: false,
  perMessageDeflate: true,
  ...(parser === "msgpack" ? { parser: msgpack } : {}),
  ...(recovery ? { connectionStateRecovery: { maxDisconnectionDuration: 60_000 } } : {}),
});

function refuse(text, data) {
  const error = new Error(text);
  error.data = data;
  return error;
}

function talk(namespace) {
  namespace.on("connection", (socket) => {
    socket.emit("welcome", socket.handshake.auth);
    socket.on("echo", (...args) => {
      const ack = args.pop();
      ack(...args);
    });
    socket.on("back", (...args) => socket.emit("back", ...args));
    socket.on("id", (ack) => ack(socket.id));
    socket.on("query", (ack) => ack(socket.handshake.query));
    socket.on("header", (name, ack) => ack(socket.handshake.headers[name]));
    socket.on("never", () => {});
    socket.on("question", (...args) => {
      socket.emit("ask", ...args, (...answers) => socket.emit("answer", ...answers));
    });
    socket.on("bytes", () => socket.emit("bytes", Buffer.from("asdfasdf", "utf8")));
    socket.on("texts", () => {
      for (const text of ["てすと", "Я Б Г Д Ж Й", "Ä ä Ü ü ß", "utf8 — string", "🎉"]) socket.emit("text", text);
    });
    socket.on("false", () => socket.emit("false", false));
    socket.on("bye", () => socket.disconnect());
    socket.on("hang up", () => socket.disconnect(true));
    socket.on("cut", () => socket.conn.close());
    socket.on("cut then back", (...args) => {
      socket.conn.close();
      setTimeout(() => socket.emit("back", ...args), 50);
    });
    socket.on("count", (key, ack) => {
      const count = (seen.get(key) || 0) + 1;
      seen.set(key, count);
      ack(count);
    });
    socket.on("third", (key, ack) => {
      const count = (seen.get(key) || 0) + 1;
      seen.set(key, count);
      if (count >= 3) ack(3);
    });
  });
}

const seen = new Map();
io.use((socket, next) => next(socket.handshake.query.fail ? refuse("Auth failed", { code: 1 }) : undefined));
io.of("/no").use((socket, next) => next(refuse("who are you?", { code: 401 })));
for (const name of ["/", "/foo", "/bar", "/no"]) talk(io.of(name));
console.log("listening");
