// A quiz on Node: the host asks, the others answer.
import { Server } from "socket.io";

const io = new Server(5000, {
  pingInterval: 25000,
  pingTimeout: 20000,
  maxHttpBufferSize: 1e6,
  cors: { origin: ["https://quiz.example"], credentials: true },
});

io.use((socket, next) => {
  const name = socket.handshake.auth.name;
  if (typeof name !== "string") {
    const error = new Error("who are you?");
    error.data = { code: 401 };
    return next(error);
  }
  socket.data.name = name;
  next();
});

io.on("connection", (socket) => {
  socket.use(([event, ...args], next) => {
    if (JSON.stringify(args).length > 1000) return next(new Error("too long"));
    next();
  });

  socket.on("join", async (room, ack) => {
    socket.join(room);
    socket.to(room).emit("joined", socket.data.name);
    const sockets = await io.in(room).fetchSockets();
    ack(sockets.map((each) => each.data.name));
  });

  socket.on("ask", async (room, question, ack) => {
    try {
      ack(await socket.to(room).timeout(5000).emitWithAck("question", question));
    } catch (error) {
      ack(error.responses);
    }
  });

  socket.on("cheer", (room) => io.to(room).except("quiet").volatile.emit("cheer"));

  socket.onAny((event) => console.log(`${socket.data.name}: ${event}`));

  socket.on("disconnecting", () => {
    for (const room of socket.rooms) {
      if (room !== socket.id) socket.to(room).emit("left", socket.data.name);
    }
  });
});

io.of(/^\/scores\/\w+$/).on("connection", (socket) => {
  const scores = socket.nsp;
  socket.on("point", (name) => scores.emit("point", name));
});
