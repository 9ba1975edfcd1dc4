// Clients that stay with a server whose workers come and go: each asks without end, and comes back when it is cut.
//
//     node stayers.cjs JSON
//
// JSON has {url, count, transports, pause}: `transports` as for cores.cjs, `pause` in milliseconds between two questions
// of a client. At each line of standard input it prints what has happened since the line before:
// {"asked", "acked", "wrong", "refused": [...], "cut": [[client, process], ...], "at": {process: clients}, "versions"}.
const { Agent } = require("node:http");
const { io } = require("socket.io-client-4");

const { url, count, transports, pause } = JSON.parse(process.argv[2]);
const agent = new Agent({ keepAlive: false });
let told;

function anew() {
  told = { asked: 0, acked: 0, wrong: 0, refused: [], cut: [], versions: {} };
}
anew();

class Client {
  constructor(number) {
    this.number = number;
    this.next = 0;
    this.process = 0;
    this.socket = io(url, {
      transports: transports[number % transports.length],
      forceNew: true,
      agent,
      reconnectionDelay: 50,
      reconnectionDelayMax: 1000,
      timeout: 60000,
    });
    this.socket.on("connect_error", (error) => told.refused.push(`${number}: ${error} ${error.description ?? ""}`));
    this.socket.on("disconnect", (reason) => {
      told.cut.push([number, this.process, reason]);
      this.process = 0;
      clearTimeout(this.timer);
    });
    this.socket.on("connect", () => this.ask());
  }

  ask() {
    const value = this.next++;
    told.asked += 1;
    this.socket.emit("where", value, ([echoed, version, process]) => {
      told.acked += 1;
      if (echoed !== value) told.wrong += 1;
      this.process = process;
      told.versions[version] = (told.versions[version] ?? 0) + 1;
      this.timer = setTimeout(() => this.socket.connected && this.ask(), pause * (0.5 + Math.random()));
    });
  }
}

const clients = Array.from({ length: count }, (_, number) => new Client(number));

process.stdin.on("data", () => {
  const at = {};
  for (const client of clients) if (client.process) at[client.process] = (at[client.process] ?? 0) + 1;
  console.log(JSON.stringify({ ...told, at }));
  anew();
});
