// Listens to a market with socket.io's own client over one or both transports, and prints what it hears as JSON lines.
import { createRequire } from "node:module";

const [modules, url, transports, expected] = process.argv.slice(2);
const { io } = createRequire(`${modules}/`)("socket.io-client");
const socket = io(url, { path: "/ws", transports: transports.split(","), reconnection: false });
const say = (value) => console.log(JSON.stringify(value));
let heard = 0;

socket.on("connect_error", (error) => { say({ failed: error.message }); process.exit(1); });
socket.on("connect", async () => {
  for (const topic of ["orders", "deals"]) say({ joined: await socket.emitWithAck("join", { chainId: 421614, topic }) });
  say({ ready: true });
});
socket.onAny((name, payload) => {
  say({ name, payload });
  heard += 1;
  if (heard === Number(expected)) {
    say({ transport: socket.io.engine.transport.name });
    socket.close();
  }
});
