// A client with retries, whose acks are lost: node retries.cjs URL KEY...
const { io } = require("../node_modules/socket.io-client-4");

const [url, ...keys] = process.argv.slice(2);
const socket = io(url, { retries: 200, ackTimeout: 300 });
let left = keys.length;
for (const key of keys) {
  socket.emit("order", key, 0, (error, ack) => {
    console.log(JSON.stringify({ key, error: error && error.message, ack }));
    left -= 1;
    if (left === 0) socket.disconnect();
  });
}
