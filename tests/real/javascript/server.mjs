// A grpc-js server of the trial service on a free port of 127.0.0.1; prints `listening PORT`.

import { toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { anyPack, AnySchema, StringValueSchema } from "@bufbuild/protobuf/wkt";
import grpc from "@grpc/grpc-js";
import { definition, message } from "./trial.mjs";

// How calls ended that were left waiting: `Hang cancelled`.
const ended = [];

/** The metadata that a call brought under `x-echo…`, with another prefix. */
function echoed(call, prefix) {
  const metadata = new grpc.Metadata();
  for (const key of Object.keys(call.metadata.getMap())) {
    if (key.startsWith("x-echo")) {
      call.metadata.get(key).forEach((value) => metadata.add(key.replace("x-echo", prefix), value));
    }
  }
  return metadata;
}

/** An error as `x-code` says, its details a google.rpc.Status with one StringValue. */
function error(call, text) {
  const code = Number(call.metadata.get("x-code")[0]);
  const any = anyPack(StringValueSchema, message(`about: ${text}`));
  const status = new BinaryWriter().uint32(8).int32(code).uint32(18).string(text);
  status.uint32(26).bytes(toBinary(AnySchema, any));
  const metadata = echoed(call, "x-trail");
  metadata.set("grpc-status-details-bin", Buffer.from(status.finish()));
  return Object.assign(new Error(text), { code, details: text, metadata });
}

function wait(name) {
  return (call) => call.on("cancelled", () => ended.push(`${name} cancelled`));
}

const methods = {
  Echo(call, answer) {
    call.sendMetadata(echoed(call, "x-head"));
    const trailers = echoed(call, "x-trail");
    const left = call.getDeadline();
    trailers.set("x-left", Number.isFinite(Number(left)) ? String(Number(left) - Date.now()) : "all");
    answer(null, call.request, trailers);
  },
  Fail: (call, answer) => answer(error(call, call.request.value)),
  Hang: wait("Hang"),
  Ended: (call, answer) => answer(null, message(ended.join(","))),
  Down(call) {
    const count = Number(call.metadata.get("x-count")[0]);
    for (let i = 0; i < count; i++) call.write(message(`${call.request.value} ${i}`));
    call.end(echoed(call, "x-trail"));
  },
  Break(call) {
    call.write(message("one"));
    call.emit("error", error(call, call.request.value));
  },
  Stay(call) {
    call.write(message("one"));
    wait("Stay")(call);
  },
  Up(call, answer) {
    let count = 0;
    call.on("data", () => count++);
    call.on("end", () => answer(null, message(String(count))));
  },
  Both(call) {
    call.on("data", (piece) => call.write(piece));
    call.on("end", () => call.end());
  },
};

const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
server.addService(definition, methods);
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (problem, port) => {
  if (problem) throw problem;
  console.log(`listening ${port}`);
});
