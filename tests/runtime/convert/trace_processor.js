// Perfetto's trace processor, from the worker of its web UI: requests on stdin, answers on stdout,
// both TraceProcessorRpcStream (perfetto: protos/perfetto/trace_processor/trace_processor.proto).
//
//     node trace_processor.js FOLDER_OF_ENGINE_BUNDLE
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const folder = process.argv[2];
const log = (...words) => console.error(...words);

// What the worker asks of a browser.
class Fetched {
  open(_, url) {
    this.file = path.join(folder, path.basename(url));
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(this.file)).buffer;
  }
}
const browser = vm.createContext({
  WorkerGlobalScope: class {},
  XMLHttpRequest: Fetched,
  console: { log, warn: log, error: log },
  crypto,
  importScripts() {},
  location: { href: "file:///" },
  performance,
  setTimeout,
  TextDecoder,
  TextEncoder,
  URL,
});
browser.self = browser;
vm.runInContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"), browser);

const Bytes = vm.runInContext("Uint8Array", browser); // each context has its own
const port = { postMessage: (bytes) => fs.writeSync(1, bytes) };
browser.onmessage({ data: port });
// The engine is ready in the next turn.
setTimeout(() => process.stdin.on("data", (bytes) => port.onmessage({ data: Bytes.from(bytes) })));
