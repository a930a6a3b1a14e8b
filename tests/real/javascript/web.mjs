// gRPC-Web over HTTP/1.1, as connect-node speaks it. Arguments: the sidecar's port for the service, and the server's.

import { toBinary } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { check, equal, happens, message, Trial } from "./trial.mjs";

const [port, direct] = process.argv.slice(2);
const web = createClient(Trial, createGrpcWebTransport({ baseUrl: `http://127.0.0.1:${port}`, httpVersion: "1.1" }));
const grpc = createClient(Trial, createGrpcTransport({ baseUrl: `http://127.0.0.1:${direct}` }));
// A percent sign, more than one alphabet, and line breaks.
const TEXT = '100 % of Δελφοί,\tлинии\r\nand 漢字 🛶 "over" %20';

/** What a call threw; `undefined` if nothing. */
async function failure(promise) {
  try {
    await promise;
  } catch (problem) {
    return ConnectError.from(problem);
  }
}

async function all(stream) {
  const texts = [];
  for await (const piece of stream) texts.push(piece.value);
  return texts;
}

async function unary() {
  equal((await web.echo(message("hello"))).value, "hello", "connect: a unary call");
  const big = "x".repeat(4 << 20);
  check((await web.echo(message(big))).value === big, "connect: a message of 4 MiB both ways");
  let head, trailers;
  const binary = Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i)).toString("base64").replaceAll("=", "");
  const headers = { "x-echo-plain": 'a value, with; "punctuation"', "x-echo-all-bin": binary };
  await web.echo(message(""), { headers, onHeader: (h) => (head = h), onTrailer: (t) => (trailers = t) });
  for (const [where, prefix, got] of [["the head", "x-head", head], ["the trailers", "x-trail", trailers]]) {
    const values = [got.get(`${prefix}-plain`), got.get(`${prefix}-all-bin`)?.replaceAll("=", "")];
    equal(values, Object.values(headers), `connect: metadata reaches the server and comes back in ${where}`);
  }
  equal(trailers.get("x-left"), "all", "connect: without a deadline the server gets none");
}

async function streams() {
  let trailers;
  const options = { headers: { "x-count": "500", "x-echo-end": "done" }, onTrailer: (t) => (trailers = t) };
  const wanted = Array.from({ length: 500 }, (_, i) => `piece ${i}`);
  equal(await all(web.down(message("piece"), options)), wanted, "connect: a stream from the server");
  equal(trailers.get("x-trail-end"), "done", "connect: and its trailers");
  equal(await all(web.down(message(""), { headers: { "x-count": "0" } })), [], "connect: a stream of nothing");

  const stop = new AbortController();
  const stay = web.stay(message(""), { signal: stop.signal })[Symbol.asyncIterator]();
  equal((await stay.next()).value.value, "one", "connect: a message comes through as soon as it is there");
  stop.abort();
  equal((await failure(stay.next()))?.code, Code.Canceled, "connect: a stream is cancelled");
  check(await happens(() => over("Stay cancelled")), "connect: and the server hears of it");
}

async function errors() {
  const wrong = [];
  for (let code = 1; code <= 16; code++) {
    const headers = { "x-code": String(code), "x-echo-why": "because" };
    const told = await failure(web.fail(message(TEXT), { headers }));
    const details = told?.findDetails(StringValueSchema).map((d) => d.value);
    const got = [told?.code, told?.rawMessage, details, told?.metadata.get("x-trail-why")];
    const wanted = [code, TEXT, [`about: ${TEXT}`], "because"];
    if (JSON.stringify(got) !== JSON.stringify(wanted)) wrong.push(got);
  }
  equal(wrong, [], "connect: 16 codes, each with text, details and metadata");
  const received = [];
  const broken = failure(
    (async () => {
      for await (const piece of web.break(message(TEXT), { headers: { "x-code": "9" } })) received.push(piece.value);
    })(),
  );
  const told = await broken;
  const got = [received, told?.code, told?.rawMessage, told?.findDetails(StringValueSchema).map((d) => d.value)];
  equal(got, [["one"], 9, TEXT, [`about: ${TEXT}`]], "connect: an error after a message");
}

async function deadlines() {
  let trailers;
  await web.echo(message(""), { timeoutMs: 40_000, onTrailer: (t) => (trailers = t) });
  const left = Number(trailers.get("x-left"));
  check(left > 30_000 && left <= 40_000, "connect: what remains of a deadline reaches the server", left);
  const told = await failure(web.hang(message(""), { timeoutMs: 300 }));
  equal(told?.code, Code.DeadlineExceeded, "connect: a deadline passes");
  check(await happens(() => over("Hang cancelled")), "connect: and the server hears of it");
}

/** Whether the server has seen a call end like that. */
async function over(what) {
  return (await grpc.ended(message(""))).value.includes(what);
}

for (const each of [unary, streams, errors, deadlines]) {
  await each().catch((problem) => check(false, `connect: ${each.name}`, problem));
}
// Messages are what their length says, in JavaScript as elsewhere: a guard against empty ones that are equal by chance.
check(toBinary(StringValueSchema, message("hello")).length === 7, "connect: messages are protobuf");
