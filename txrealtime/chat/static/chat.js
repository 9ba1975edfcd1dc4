"use strict";
// The chat page. What others wrote reaches the document through textContent only, never as markup.
// In order: small helpers, the connection, rooms and people, messages, sending, typing, pictures, the page.

const $ = (id) => document.getElementById(id);
const PAGE_TITLE = document.title;
const SOCKET_PATH = document.currentScript.dataset.path;
const ANSWER_WITHIN = 10_000;          // ms that the server has to acknowledge an event
const PICTURE_WITHIN = 60_000;         // the same for a picture, which a slow line takes a while to carry
const MAX_TRIES = 4;                   // times that a message is sent before its author has to ask for more
const MAX_SHOWN = 300;                 // messages kept in the page
const GROUP_WITHIN = 300;              // seconds in which messages of one person stand together
const TYPING_EVERY = 2_000;            // ms between two "still typing" events
const TYPING_FOR = 4_000;              // ms after which somebody who fell silent is not typing any more

function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

function icon(name, className = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.append(document.createElementNS(svg.namespaceURI, "use"));
  svg.firstChild.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

// randomUUID() exists on https only, and a phone on the same network comes by plain http.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

const clock = (date, options) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...options });

function hue(nick) {
  let sum = 7;
  for (const character of nick) sum = (sum * 31 + character.codePointAt(0)) % 3600;
  return sum / 10;
}

function dress(avatar, nick) {
  avatar.style.setProperty("--hue", hue(nick));
  avatar.textContent = Array.from(nick)[0].toUpperCase();
  return avatar;
}

function avatar(nick) {
  const circle = dress(make("span", "avatar"), nick);
  circle.setAttribute("aria-hidden", "true");
  return circle;
}

function remember(storage, key, value) {
  try {                                // storage may be switched off: the chat works without
    if (value !== undefined) storage.setItem(key, value);
    return storage.getItem(key) ?? "";
  } catch {
    return value ?? "";
  }
}

let toastTimer;
function tell(text) {
  clearTimeout(toastTimer);
  $("notice").textContent = text;
  $("notice").hidden = false;
  toastTimer = setTimeout(() => { $("notice").hidden = true; }, 6000);
}

// ---- The connection ---------------------------------------------------------------------------

// The key tells the server that a connection which comes back is the same person, not a namesake.
const me = { nick: remember(localStorage, "nick"), key: remember(sessionStorage, "key") };
const here = { room: "", you: "", author: "", people: new Set(), maxPicture: 0 };   // as the server last told
let wanted = "";                       // the room that this page is in, or is on its way to
let joined = false;                    // true while the server counts this connection in `wanted`

const socket = window.io?.({ path: SOCKET_PATH, autoConnect: false, auth: (give) => give(me) });
const TRANSPORTS = { polling: "polling", websocket: "WebSocket", webtransport: "WebTransport" };

function connection(state, text, event = text) {
  $("link").dataset.state = state;
  $("link-text").textContent = text;
  const line = make("li", "", make("time", "", clock(new Date(), { second: "2-digit" })), make("span", "", event));
  $("link-log").append(line);
  while ($("link-log").childElementCount > 50) $("link-log").firstChild.remove();
}

function start() {
  socket.io.on("open", () => {
    const engine = socket.io.engine;
    const name = TRANSPORTS[engine.transport.name];
    connection("connected", name, `Connected by ${name}`);
    engine.once("upgrade", (transport) => {
      connection("connected", TRANSPORTS[transport.name], `Upgraded to ${TRANSPORTS[transport.name]}`);
    });
  });
  socket.io.on("reconnect_attempt", (n) => connection("connecting", "Reconnecting…", `Reconnecting, attempt ${n}`));
  socket.io.on("reconnect_error", () => connection("offline", "Offline", "No answer"));

  socket.on("connect", () => join(wanted));
  socket.on("disconnect", (reason) => {
    joined = false;
    connection("offline", "Offline", `Disconnected: ${reason}`);
    for (const nick of typists.keys()) stopped(nick);
    // The client comes back by itself, except after a disconnect that the server asked for.
    if (reason === "io server disconnect" && !$("chat").hidden) setTimeout(() => socket.connect(), 1000);
  });
  socket.on("connect_error", (error) => {
    if (socket.active) return;         // the line is down: the client tries again
    showEntry(error.message);          // the server refused, and said why
  });
  socket.on("replaced", () => {
    socket.disconnect();
    me.key = remember(sessionStorage, "key", "");      // two copies of one tab become two people
    showEntry("You came back in another window, so this one was left.");
  });

  socket.on("rooms", showRooms);
  socket.on("joined", (nick) => { here.people.add(nick); showPeople(); remark(`${nick} joined`); });
  socket.on("left", (nick) => { here.people.delete(nick); stopped(nick); showPeople(); remark(`${nick} left`); });
  socket.on("renamed", (nick) => { here.people.add(here.you = nick); showMe(); showPeople(); });
  socket.on("typing", (nick, busy) => (busy ? typing(nick) : stopped(nick)));
  socket.on("said", (message) => { stopped(message.nick); show(message); unread(); });
  socket.on("again", () => { if (joined) join(here.room); });       // others may have said more meanwhile
}

// ---- Rooms and people -------------------------------------------------------------------------

const roomInAddress = () => {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim();
  } catch {
    return "";
  }
};
const address = (room) => `#${encodeURIComponent(room)}`;

function join(room) {
  wanted = room;
  joined = false;
  if (!socket.connected) return;       // "connect" joins
  socket.timeout(ANSWER_WITHIN).emit("join", room, (error, answer) => {
    if (wanted !== room) return;       // on the way to yet another room
    if (error) return socket.connected && tell("The server did not answer. Choose the room again.");
    if (answer.error) {
      tell(answer.error);
      if (here.room) join(here.room);
      return;
    }
    arrive(answer);
  });
}

function arrive({ room, you, author, people, said, maxPicture }) {
  if (room !== here.room) clearLog();
  Object.assign(here, { room, you, author, people: new Set(people), maxPicture });
  wanted = room;
  joined = true;
  said.forEach(show);
  for (const message of outbox.values()) {
    if (message.room === room) {
      show(message);
      if (message.state !== "failed") deliver(message);
    }
  }
  if (roomInAddress() !== room) history.replaceState(null, "", address(room));
  $("room-name").textContent = room;
  showMe();
  document.title = `#${room} · ${PAGE_TITLE}`;
  showPeople();
  markRoom();
}

function showMe() {
  $("me-name").textContent = here.you;
  dress($("me-avatar"), here.you);
}

function showPeople() {
  const others = [...here.people].filter((nick) => nick !== here.you).sort((a, b) => a.localeCompare(b));
  const line = (nick, ...more) => make("li", "", avatar(nick), make("span", "grow", nick), ...more);
  $("people").replaceChildren(line(here.you, make("span", "you", "you")), ...others.map((nick) => line(nick)));
  const count = here.people.size;
  $("room-count").textContent = count === 1 ? "Only you so far" : `${count} people here`;
}

function showRooms(rooms) {
  $("rooms").replaceChildren(...rooms.map(([room, count]) => {
    const people = make("span", "count", String(count));
    people.setAttribute("aria-label", `${count} here`);
    const link = make("a", "", make("span", "grow", room), people);
    link.href = address(room);
    link.dataset.room = room;
    return make("li", "", link);
  }));
  markRoom();
}

function markRoom() {
  for (const link of $("rooms").querySelectorAll("a")) {
    if (link.dataset.room === here.room) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// ---- Messages ---------------------------------------------------------------------------------

const shown = new Map();               // id -> message, for everything in the log
const messageOf = new WeakMap();       // the log's element -> message

function clearLog() {
  for (const message of shown.values()) forget(message);
  $("log").replaceChildren();
}

function forget(message) {
  shown.delete(message.id);
  if (message.url) URL.revokeObjectURL(message.url);
  message.node = message.url = undefined;
}

// A remark has no message; it stands behind all that was said.
function append(node) {
  const log = $("log");
  const message = messageOf.get(node);
  let behind = null;
  for (let other = log.lastChild; other; other = other.previousElementSibling) {
    const theirs = messageOf.get(other);
    if (other === node || !theirs) continue;
    if (!comesBefore(message, theirs)) break;
    behind = other;
  }
  const next = node.nextElementSibling;
  if (node.parentNode !== log || next !== behind) log.insertBefore(node, behind);
  [next, node, node.nextElementSibling].forEach(group);
  while (log.childElementCount > MAX_SHOWN) {
    const oldest = messageOf.get(log.firstChild);
    log.firstChild.remove();
    if (oldest) forget(oldest);
  }
}

// The order of the servers' history. What the server has not acknowledged stays at the end.
function comesBefore(message, other) {
  if (!message || message.state === "sending") return !message && other.state === "sending";
  if (other.state === "sending") return true;
  return message.time < other.time || (message.time === other.time && message.id < other.id);
}

function group(node) {
  const message = messageOf.get(node);
  const before = messageOf.get(node?.previousElementSibling);
  const follows = Boolean(message && before && before.nick === message.nick && message.time - before.time < GROUP_WITHIN);
  node?.classList.toggle("follows", follows);
  node?.previousElementSibling?.classList.toggle("followed", follows);
}

const remark = (text) => append(make("li", "event", text));

function show(message) {
  const known = shown.get(message.id);
  if (known) {                         // said before the line was lost, or come back in the history
    if (known.state && known !== message) delivered(known, message.time);
    return;
  }
  const mine = message.mine ??= message.author === here.author;      // what I send has no author yet
  const name = make("span", "name", message.nick);
  name.style.setProperty("--hue", hue(message.nick));
  const body = message.type || message.kind === "picture" ? pictureBody(message) : make("span", "said", ...linked(message.text));
  const stamp = make("span", "stamp", make("time", "", clock(new Date(message.time * 1000))));
  message.node = make("li", `message${mine ? " mine" : ""}`, avatar(message.nick), name, make("div", "bubble", body, stamp));
  if (body.tagName === "BUTTON") message.node.classList.add("picture");
  messageOf.set(message.node, message);
  append(message.node);
  shown.set(message.id, message);
  if (mine) mark(message, message.state ?? "delivered");
}

const LINK = /\bhttps?:\/\/[^\s<>"]+/gi;

// A text, with its addresses as links. The point or the bracket behind an address is not a part of it.
function* linked(text) {
  let end = 0;
  for (const found of text.matchAll(LINK)) {
    let url = found[0].replace(/[.,;:!?'…]+$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1).replace(/[.,;:!?'…]+$/, "");
    if (!URL.canParse(url)) continue;
    const link = make("a", "", url);
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    yield text.slice(end, found.index);
    yield link;
    end = found.index + url.length;
  }
  yield text.slice(end);
}

function mark(message, state, why = "") {
  message.state = state;
  const node = message.node;
  if (!node) return;
  node.dataset.state = state;
  const words = { sending: "Sending", delivered: "Taken by the server", failed: "Not delivered" }[state];
  const tick = make("span", "", icon(state, "tick"), make("span", "unseen", words));
  tick.title = words;
  node.querySelector(".stamp").replaceChildren(node.querySelector("time"), tick);
  node.querySelector(".again")?.remove();
  if (state === "failed") {
    const again = make("button", "again", icon("failed"), why ? `${why} Try again` : "Not delivered. Try again");
    again.type = "button";
    again.addEventListener("click", () => { message.tries = 0; deliver(message); });
    node.append(again);
  }
}

let unreadCount = 0;
function unread() {
  unreadCount = document.hidden ? unreadCount + 1 : 0;
  document.title = `${unreadCount ? `(${unreadCount}) ` : ""}#${here.room} · ${PAGE_TITLE}`;
}
document.addEventListener("visibilitychange", unread);

// ---- Sending ----------------------------------------------------------------------------------

const outbox = new Map();              // id -> message that the server has not acknowledged

function send(kind, body, more) {
  const message = { id: newId(), kind, body, room: wanted, nick: here.you, time: Date.now() / 1000, mine: true, state: "sending", tries: 0, ...more };
  outbox.set(message.id, message);
  show(message);
  deliver(message);
}

// Called again when the room is entered again: the server knows the id of what it has already passed on.
function deliver(message) {
  mark(message, "sending");
  if (!joined || message.room !== here.room) return;
  message.tries += 1;
  const within = message.kind === "picture" ? PICTURE_WITHIN : ANSWER_WITHIN;
  socket.timeout(within).emit(message.kind, message.id, message.body, (error, answer) => {
    // A message that costs the connection again and again must not be sent for ever.
    if (error && !socket.connected && message.tries < MAX_TRIES) return;
    if (error) return mark(message, "failed", "The server did not answer.");
    if (answer?.error) return mark(message, "failed", answer.error);
    delivered(message, answer);
  });
}

function delivered(message, time) {
  outbox.delete(message.id);
  message.body = undefined;
  message.time = time;                 // the server's, by which the messages stand in order
  mark(message, "delivered");
  if (message.node) append(message.node);
}

$("composer").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const text = $("text").value.trim();
  $("text").value = "";
  fit();
  $("text").focus();
  typingSent = 0;
  if (text) send("say", text, { text });
});

$("text").addEventListener("keydown", (key) => {
  if (key.key !== "Enter" || key.shiftKey || key.isComposing) return;
  key.preventDefault();
  $("composer").requestSubmit();
});

function fit() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

// ---- Typing -----------------------------------------------------------------------------------

const typists = new Map();             // nick -> timer
let typingSent = 0;

$("text").addEventListener("input", () => {
  fit();
  const busy = $("text").value.trim() !== "";
  if (!joined || (busy && Date.now() - typingSent < TYPING_EVERY) || (!busy && !typingSent)) return;
  typingSent = busy ? Date.now() : 0;
  socket.volatile.emit("typing", busy);
});

function typing(nick) {
  clearTimeout(typists.get(nick));
  typists.set(nick, setTimeout(() => stopped(nick), TYPING_FOR));
  showTypists();
}

function stopped(nick) {
  clearTimeout(typists.get(nick));
  if (typists.delete(nick)) showTypists();
}

function showTypists() {
  const nicks = [...typists.keys()];
  const who = nicks.length > 2 ? "Several people are" : `${nicks.join(" and ")} ${nicks.length > 1 ? "are" : "is"}`;
  $("typing").classList.toggle("on", nicks.length > 0);
  $("typing-text").textContent = nicks.length ? `${who} typing` : "";
}

// ---- Pictures ---------------------------------------------------------------------------------

const KINDS = $("picture").accept.split(",");

async function sendPicture(file) {
  if (!KINDS.includes(file.type)) return tell("A picture can be PNG, JPEG, GIF or WebP.");
  if (!here.room) return;
  try {
    const blob = file.size <= here.maxPicture ? file : await smaller(file);
    send("picture", await blob.arrayBuffer(), { type: blob.type });
  } catch {
    tell(`${file.name || "The picture"} cannot be sent: it is too large, or not a picture.`);
  }
}

// The server takes pictures that fit in one message. A larger one is sent as a smaller JPEG, except a GIF, which may move.
async function smaller(file) {
  if (file.type === "image/gif") throw new Error("too large");
  const bitmap = await createImageBitmap(file);
  for (const side of [2048, 1600, 1200, 800, 400]) {
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "white";       // behind what is transparent, which JPEG lacks
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.85));
    if (blob && blob.size <= here.maxPicture) return blob;
  }
  throw new Error("too large");
}

function pictureBody(message) {
  const button = make("button", "shown");
  button.type = "button";
  button.setAttribute("aria-label", `Picture from ${message.nick}, open it`);
  if (message.body) fill(button, message, message.body);
  else fetchPicture(button, message);
  return button;
}

// What was said names its pictures only, and each is fetched by itself. What I send has its bytes here.
function fetchPicture(button, message) {
  const words = make("span", "missing", "Loading the picture…");
  button.replaceChildren(words);
  button.onclick = null;
  socket.timeout(PICTURE_WITHIN).emit("fetch", message.id, (error, answer) => {
    if (!message.node) return;         // the log was cleared meanwhile
    if (!error && !answer.error) return fill(button, message, answer);
    words.textContent = answer?.error ?? "The picture did not arrive. Try again";
    if (error) button.onclick = () => fetchPicture(button, message);
  });
}

function fill(button, message, bytes) {
  message.url = URL.createObjectURL(new Blob([bytes], { type: message.type }));
  const image = make("img");
  image.alt = "";
  image.src = message.url;
  button.replaceChildren(image);
  button.onclick = () => view(message);
}

function view(message) {
  $("viewer-image").src = $("viewer-save").href = message.url;
  $("viewer-image").alt = `Picture from ${message.nick}`;
  $("viewer-text").textContent = `${message.nick}, ${clock(new Date(message.time * 1000))}`;
  $("viewer-save").download = `${message.id}.${message.type.split("/")[1]}`;
  $("viewer").showModal();
}

$("viewer-image").addEventListener("click", () => $("viewer").close());
$("picture").addEventListener("change", () => {
  for (const file of $("picture").files) sendPicture(file);
  $("picture").value = "";
});
document.addEventListener("paste", (paste) => {
  const files = $("chat").hidden ? [] : [...paste.clipboardData.files];
  if (files.length) paste.preventDefault();
  files.forEach(sendPicture);
});
document.addEventListener("dragover", (drag) => {
  drag.preventDefault();
  $("drop").hidden = !drag.dataTransfer.types.includes("Files");
});
document.addEventListener("dragleave", (drag) => { if (!drag.relatedTarget) $("drop").hidden = true; });
document.addEventListener("drop", (drop) => {
  drop.preventDefault();
  $("drop").hidden = true;
  if (!$("chat").hidden) [...drop.dataTransfer.files].forEach(sendPicture);
});

// ---- The page: the way in, the room's address, the side panel ------------------------------------

function showEntry(error = "") {
  $("chat").hidden = true;
  $("entry").hidden = false;
  $("entry-error").textContent = error;
  $("nick").value = me.nick;
  $("entry-room").value = roomInAddress() || "lobby";
  $(me.nick ? "enter" : "nick").focus();
}

function enter(nick, room) {
  me.nick = remember(localStorage, "nick", nick);
  me.key = remember(sessionStorage, "key", me.key || newId());
  $("entry").hidden = true;
  $("chat").hidden = false;
  if (matchMedia("(hover: hover)").matches) $("text").focus();         // on a phone that opens the keyboard
  join(room);
  connection("connecting", "Connecting…");
  socket.connect();
}

$("entry-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  enter($("nick").value.trim(), $("entry-room").value.trim());
});

// A name that is too long is refused with a word, and not cut.
for (const input of document.querySelectorAll("[data-most]")) {
  input.addEventListener("input", () => {
    const most = Number(input.dataset.most), length = Array.from(input.value.trim()).length;
    const words = length > most ? `A name has at most ${most} characters; this one has ${length}.` : "";
    input.setCustomValidity(words);
    if (input.form.id === "entry-form") $("entry-error").textContent = words;
    else if (words) tell(words);
  });
}

$("leave").addEventListener("click", () => {
  side(false);
  remember(sessionStorage, "key", "");
  socket.disconnect();
  showEntry();
});

$("room-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const room = $("room").value.trim();
  $("room").value = "";
  if (room) location.hash = address(room);
});

addEventListener("hashchange", () => {
  const room = roomInAddress();
  side(false);
  if (!$("chat").hidden && room && room !== wanted) join(room);
});

function side(open) {
  const wasOpen = $("side").classList.contains("open");
  $("side").classList.toggle("open", open);
  $("shade").hidden = !open;
  $("talk").inert = open;              // what the panel covers takes no focus
  $("side-open").setAttribute("aria-expanded", String(open));
  if (open) $("side-close").focus();
  else if (wasOpen) $("side-open").focus();
}
// A wide window shows both, and has no button for the panel.
const narrow = matchMedia("(max-width: 760px)");
narrow.addEventListener("change", () => side(false));
$("side-open").addEventListener("click", () => side(true));
$("side-close").addEventListener("click", () => side(false));
$("shade").addEventListener("click", () => side(false));

document.addEventListener("keydown", (key) => {
  if (key.key !== "Escape") return;
  side(false);
  $("link").open = false;
});
document.addEventListener("click", (click) => { if (!$("link").contains(click.target)) $("link").open = false; });

if (!socket) {
  showEntry("The Socket.IO client could not be loaded. Install it with “npm install socket.io-client”, or go online.");
  $("enter").disabled = true;
} else {
  start();
  if (me.nick && me.key) enter(me.nick, roomInAddress() || "lobby");   // the same tab, loaded again
  else showEntry();
}
