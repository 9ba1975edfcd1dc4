// Clients of docs/examples/guide/workers.py behind a load balancer, each from an address of its own.
//
//     node workers.cjs URL ADDRESS...
//
// They connect as browsers do, by polling first, and upgrade. Prints JSON lines: {"who": [[worker, address], ...]};
// {"heard": ...} when the first has spoken to all and to a room; {"outside": ...} when somebody else has spoken.
const http = require("node:http");
const { io } = require("socket.io-client-4");

const [url, ...addresses] = process.argv.slice(2);
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const tell = (what) => console.log(JSON.stringify(what));

async function main() {
  const clients = await Promise.all(addresses.map(async (localAddress) => {
    const socket = io(url, { forceNew: true, reconnection: false, agent: new http.Agent({ localAddress, keepAlive: true }) });
    socket.on("connect_error", (error) => { throw error; });
    socket.on("disconnect", (reason) => { if (!reason.startsWith("io client")) throw new Error(reason); });
    socket.heard = [];
    socket.on("said", (text) => socket.heard.push(text));
    await next(socket, "connect");
    while (socket.io.engine.transport.name !== "websocket") await new Promise((resolve) => setTimeout(resolve, 5));
    return socket;
  }));
  // Until everybody has so many, and no more.
  const heard = async (count) => {
    for (const socket of clients) while (socket.heard.length < count) await next(socket, "said");
    return clients.map((socket) => socket.heard.splice(0));
  };

  tell({ who: await Promise.all(clients.map((socket) => new Promise((resolve) => socket.emit("who", (...who) => resolve(who))))) });

  clients[0].emit("say", "hello");
  const everybody = await heard(1);
  // The room is one of some of the workers' clients; a last word to all shows that nothing else was on its way.
  await Promise.all(clients.slice(1).map((socket) => new Promise((resolve) => socket.emit("join", "red", resolve))));
  clients[0].emit("say", "for the room", "red");
  clients[0].emit("say", "the end");
  for (const socket of clients) while (!socket.heard.includes("the end")) await next(socket, "said");
  tell({ heard: [everybody, clients.map((socket) => socket.heard.splice(0).sort())] });

  for (const socket of clients) while (!socket.heard.includes("Dinner is ready")) await next(socket, "said");
  for (const socket of clients.slice(1)) while (socket.heard.length < 2) await next(socket, "said");
  tell({ outside: clients.map((socket) => socket.heard.splice(0).sort()) });
  clients.forEach((socket) => socket.disconnect());
}

main();
