// The application on Socket.IO's engine for Bun, started as its documentation says: the default export is what Bun serves.
// KEY and CERT make it TLS.
import { createRequire } from "module";

const { PORT, MODULES, KEY, CERT } = process.env;
const installed = createRequire(MODULES + "/");
const { Server: Engine } = installed("@socket.io/bun-engine");
const { Server } = installed("socket.io");

const io = new Server();
const engine = new Engine({ path: "/socket.io/" });
io.bind(engine);

io.on("connection", (socket) => {
  socket.on("echo", (payload, answer) => answer(payload));
  socket.on("join", (room, answer) => {
    socket.join(room);
    answer();
  });
  socket.on("broadcast", (payload) => io.emit("news", payload));
});

export default {
  port: Number(PORT),
  hostname: "127.0.0.1",
  ...(KEY ? { tls: { key: Bun.file(KEY), cert: Bun.file(CERT) } } : {}),
  ...engine.handler(),
};
