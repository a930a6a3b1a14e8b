// The trial service, for both JavaScript implementations of gRPC, without generated code: its messages are
// google.protobuf.StringValue, its descriptor is made here. And how a script tells its verdicts to the part that runs it.

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, StringValueSchema, file_google_protobuf_wrappers } from "@bufbuild/protobuf/wkt";

const VALUE = ".google.protobuf.StringValue";
// name: [streams to the server, streams from it]
const METHODS = {
  Echo: [false, false],
  Fail: [false, false],
  Hang: [false, false],
  Ended: [false, false],
  Down: [false, true],
  Break: [false, true],
  Stay: [false, true],
  Up: [true, false],
  Both: [true, true],
};

const method = ([name, [clientStreaming, serverStreaming]]) => ({
  name,
  inputType: VALUE,
  outputType: VALUE,
  clientStreaming,
  serverStreaming,
});
const file = create(FileDescriptorProtoSchema, {
  name: "trial.proto",
  package: "trial",
  syntax: "proto3",
  dependency: ["google/protobuf/wrappers.proto"],
  service: [{ name: "Trial", method: Object.entries(METHODS).map(method) }],
});

/** The service, as connect wants it. */
export const Trial = createFileRegistry(file, (name) =>
  name === file_google_protobuf_wrappers.proto.name ? file_google_protobuf_wrappers.proto : undefined,
).getService("trial.Trial");

const serialize = (message) => Buffer.from(toBinary(StringValueSchema, message));
const deserialize = (bytes) => fromBinary(StringValueSchema, bytes);

/** A message of the service. */
export const message = (value) => create(StringValueSchema, { value });

/** The service, as grpc-js wants it. */
export const definition = Object.fromEntries(
  Object.entries(METHODS).map(([name, [requestStream, responseStream]]) => [
    name,
    {
      path: `/trial.Trial/${name}`,
      requestStream,
      responseStream,
      requestSerialize: serialize,
      requestDeserialize: deserialize,
      responseSerialize: serialize,
      responseDeserialize: deserialize,
    },
  ]),
);

/** A verdict, on a line that the part reads. */
export function check(holds, what, detail) {
  console.log(JSON.stringify({ holds: Boolean(holds), what, detail: holds ? "" : describe(detail) }));
}

/** A verdict on two values that can be written as JSON. */
export function equal(got, wanted, what) {
  check(JSON.stringify(got) === JSON.stringify(wanted), what, { got, wanted });
}

function describe(detail) {
  return detail instanceof Error ? String(detail.stack) : JSON.stringify(detail);
}

/** Asks until the answer is true, for ten seconds; whether it came to be. */
export async function happens(probe) {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    if (await probe()) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}
