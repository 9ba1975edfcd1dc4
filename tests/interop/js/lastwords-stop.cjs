// A client that has a server stop: node lastwords-stop.cjs URL
const { io } = require("../node_modules/socket.io-client-4");

const socket = io(process.argv[2], { transports: ["websocket"], query: { name: "stopper" }, reconnection: false });
socket.on("connect", () => socket.emit("stop"));
socket.on("disconnect", () => process.exit());
