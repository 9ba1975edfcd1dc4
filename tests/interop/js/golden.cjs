// What the JavaScript codecs make of packets, and of what our codecs made of them.
//
//     node golden.cjs TASKS
//
// TASKS is a file with a JSON list of {"codec", "packets", "wires"}. Prints a list of {"wires", "packets"}: the wire form that the
// codec of that name gives each of the packets, and the packet that it reads from each of the wires. Bytes, anywhere,
// are {"$bytes": BASE64}; dates are {"$date": MILLISECONDS} and undefined is {"$undefined": true}.
const { Buffer } = require("node:buffer");
const engine1 = require("engine.io-parser-1");
const engine2 = require("engine.io-parser-2");
const engine5 = require("engine.io-parser-5");
const socket3 = require("socket.io-parser-3");
const socket4 = require("socket.io-parser-4");
const msgpack = require("socket.io-msgpack-parser");

const called = (run) => {
  let result;
  run((value) => (result = value)); // none of these codecs waits for anything in Node
  return result;
};

// -- Engine.IO: a packet is [type, data], a payload is a list of them

const engineOut = (packets) => packets.map(([type, data]) => ({ type, data }));
const engineIn = (packets) => packets.map(({ type, data }) => [type, data ?? ""]);

function payloadOf3(parser, supportsBinary) {
  return {
    encode: (packets) => called((done) => parser.encodePayload(engineOut(packets), supportsBinary, done)),
    decode: (wire) => {
      const packets = [];
      parser.decodePayload(wire, "nodebuffer", (packet) => void packets.push(packet));
      return engineIn(packets);
    },
  };
}

function frameOf3(parser, supportsBinary) {
  return {
    encode: (packets) => called((done) => parser.encodePacket(engineOut(packets)[0], supportsBinary, false, done)),
    decode: (wire) => engineIn([parser.decodePacket(wire, "nodebuffer")]),
  };
}

const payload5 = {
  encode: (packets) => called((done) => engine5.encodePayload(engineOut(packets), done)),
  decode: (wire) => engineIn(engine5.decodePayload(wire, "nodebuffer")),
};

const frame5 = {
  encode: (packets) => called((done) => engine5.encodePacket(engineOut(packets)[0], true, done)),
  decode: (wire) => engineIn([engine5.decodePacket(wire, "nodebuffer")]),
};

// -- Socket.IO: a packet is {type, nsp, data, id}, its wire form a list of messages

const EVENT = 2;
const BINARY_EVENT = 5;

function hasBytes(data) {
  return Buffer.isBuffer(data) || (!!data && typeof data === "object" && Object.values(data).some(hasBytes));
}

function decodedBy(Decoder, messages) {
  const decoder = new Decoder();
  const packets = [];
  decoder.on("decoded", (packet) => packets.push(packet));
  for (const message of messages) decoder.add(message);
  decoder.destroy();
  return packets.map(({ type, nsp, data, id }) => ({
    type: type >= BINARY_EVENT ? type - BINARY_EVENT + EVENT : type,
    nsp,
    ...(data === undefined ? {} : { data }),
    ...(id === undefined ? {} : { id }),
  }));
}

const socketOut3 = {
  encode: (packet) => {
    // The client of that time says itself when there are bytes in the data.
    const type = hasBytes(packet.data) ? packet.type - EVENT + BINARY_EVENT : packet.type;
    return called((done) => new socket3.Encoder().encode({ ...packet, type }, done));
  },
  decode: (messages) => decodedBy(socket3.Decoder, messages),
};

const socketOut = ({ Encoder, Decoder }) => ({
  encode: (packet) => new Encoder().encode(packet),
  decode: (messages) => decodedBy(Decoder, messages),
});

const codecs = {
  "engine 3 payload of clients 1": payloadOf3(engine1, true),
  "engine 3 payload of clients 1 in base64": payloadOf3(engine1, false),
  "engine 3 frame of clients 1": frameOf3(engine1, true),
  "engine 3 frame of clients 1 in base64": frameOf3(engine1, false),
  "engine 3 payload of clients 2": payloadOf3(engine2, true),
  "engine 3 payload of clients 2 in base64": payloadOf3(engine2, false),
  "engine 3 frame of clients 2": frameOf3(engine2, true),
  "engine 3 frame of clients 2 in base64": frameOf3(engine2, false),
  "engine 4 payload": payload5,
  "engine 4 frame": frame5,
  "socket 4": socketOut3,
  "socket 5": socketOut(socket4),
  "socket 5 in msgpack": socketOut(msgpack),
};

// -- in and out

function marked(value) {
  if (value === undefined) return { $undefined: true };
  if (value instanceof Date) return { $date: value.getTime() };
  if (value instanceof ArrayBuffer) value = Buffer.from(value);
  if (ArrayBuffer.isView(value)) return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(marked);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, marked(item)]));
}

function unmarked(value) {
  if (Array.isArray(value)) return value.map(unmarked);
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return Buffer.from(value.$bytes, "base64");
  if ("$date" in value) return new Date(value.$date);
  if ("$undefined" in value) return undefined;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unmarked(item)]));
}

const tasks = JSON.parse(require("node:fs").readFileSync(process.argv[2], "utf8"));
const results = tasks.map(({ codec, packets, wires }) => ({
  wires: packets.map((packet) => marked(codecs[codec].encode(unmarked(packet)))),
  packets: wires.map((wire) => marked(codecs[codec].decode(unmarked(wire)))),
}));
process.stdout.write(JSON.stringify(results));
