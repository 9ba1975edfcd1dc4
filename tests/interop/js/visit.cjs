// A visit to one of docs/examples by socket.io-client 4: the page, a word said, and what everyone hears.
//
//     node visit.cjs http://127.0.0.1:PORT [PATH]      PATH: something is POSTed there, to be heard by everyone
//
// Prints one JSON line: {"page", "transport", "answer", "heard"}.
const { io } = require("socket.io-client-4");

const [url, path] = process.argv.slice(2);
const next = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));

async function main() {
  const page = await (await fetch(url + "/")).text();
  const [speaker, listener] = [io(url, { forceNew: true }), io(url, { forceNew: true })];
  await Promise.all([next(speaker, "connect"), next(listener, "connect")]);
  while (speaker.io.engine.transport.name !== "websocket") await new Promise((resolve) => setTimeout(resolve, 5));

  const heard = [];
  listener.on("said", (text) => heard.push(text));
  const answer = await new Promise((resolve) => speaker.emit("say", "Größe", (...args) => resolve(args)));
  while (heard.length < 1) await next(listener, "said");
  if (path) {
    await fetch(url + path, { method: "POST", body: "posted" });
    while (heard.length < 2) await next(listener, "said");
  }
  console.log(JSON.stringify({ page, transport: speaker.io.engine.transport.name, answer, heard }));
  speaker.disconnect();
  listener.disconnect();
}

main();
