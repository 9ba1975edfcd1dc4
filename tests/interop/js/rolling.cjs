// Clients with the options of browsers, each from an address of its own, while servers restart.
//
//     node rolling.cjs URL COUNT
//
// Prints a JSON line whenever all are connected, {"all": disconnects so far}, and when standard input ends
// {"errors": [...], "disconnects": [a count of each client], "heard": [clients that heard the last broadcast]}.
const http = require("node:http");
const { io } = require("socket.io-client-4");

const [url, count] = process.argv.slice(2);
const errors = [];
const disconnects = new Array(Number(count)).fill(0);
const tell = (what) => console.log(JSON.stringify(what));

const clients = disconnects.map((_, index) => {
  const agent = new http.Agent({ localAddress: `127.0.${index + 1}.7`, keepAlive: true });
  const socket = io(url, { forceNew: true, agent });
  socket.on("connect_error", (error) => errors.push(`${error} ${error.description ?? ""}`));
  socket.on("disconnect", () => disconnects[index]++);
  socket.on("connect", () => {
    if (clients.every(({ connected }) => connected)) tell({ all: disconnects.reduce((sum, value) => sum + value) });
  });
  return socket;
});

process.stdin.resume().on("end", async () => {
  const heard = clients.map((socket) => new Promise((resolve) => socket.once("heard", resolve)));
  clients[0].emit("tell everyone", "the end");
  tell({ errors, disconnects, heard: await Promise.all(heard) });
  process.exit();
});
