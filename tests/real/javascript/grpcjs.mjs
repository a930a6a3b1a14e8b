// A client of grpc-js, all kinds of call. Arguments: a port, and the service's name for the shared port (or nothing).

import grpc from "@grpc/grpc-js";
import { check, definition, equal, happens, message } from "./trial.mjs";

const [port, authority] = process.argv.slice(2);
const Client = grpc.makeGenericClientConstructor(definition, "Trial");
const options = { "grpc.enable_retries": 0, "grpc.enable_http_proxy": 0, "grpc.max_receive_message_length": -1 };
if (authority) options["grpc.default_authority"] = authority;
const client = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options);
const way = authority ? "grpc-js, the shared port" : "grpc-js, its own port";

function metadata(pairs) {
  const all = new grpc.Metadata();
  for (const [key, value] of Object.entries(pairs)) all.set(key, value);
  return all;
}

/** A call with one message each way: {problem, value, status}. */
function once(name, request, pairs = {}, limits = {}) {
  return new Promise((resolve) => {
    let status, end;
    const settle = () => status && end && resolve({ ...end, status });
    const call = client[name](message(request), metadata(pairs), limits, (problem, answer) => {
      end = { problem, value: answer?.value };
      settle();
    });
    call.on("status", (told) => {
      status = told;
      settle();
    });
  });
}

/** The rest of a stream: {values, status}. */
function rest(call) {
  return new Promise((resolve) => {
    const values = [];
    call.on("data", (piece) => values.push(piece.value));
    call.on("error", () => {});
    call.on("status", (status) => resolve({ values, status }));
  });
}

async function calls() {
  equal((await once("Echo", "hello")).value, "hello", `${way}: a unary call`);
  const big = "y".repeat(4 << 20);
  check((await once("Echo", big)).value === big, `${way}: a message of 4 MiB both ways`);
  const bytes = Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i));
  const { status } = await once("Echo", "", { "x-echo-all-bin": bytes, "x-echo-plain": "a value" });
  const got = [status.metadata.get("x-trail-all-bin")[0]?.toString("hex"), status.metadata.get("x-trail-plain")[0]];
  equal(got, [bytes.toString("hex"), "a value"], `${way}: metadata there and back`);

  const down = await rest(client.Down(message("piece"), metadata({ "x-count": "500" })));
  equal(down.values, Array.from({ length: 500 }, (_, i) => `piece ${i}`), `${way}: a stream from the server`);

  const up = new Promise((resolve) => {
    const call = client.Up((problem, answer) => resolve(problem ?? answer.value));
    for (let i = 0; i < 500; i++) call.write(message(`piece ${i}`));
    call.end();
  });
  equal(await up, "500", `${way}: a stream to the server`);

  const both = client.Both();
  const turns = [];
  both.on("data", (piece) => {
    turns.push(piece.value);
    turns.length < 100 ? both.write(message(String(turns.length))) : both.end();
  });
  both.write(message("0"));
  const end = await new Promise((resolve) => both.on("status", resolve));
  equal([end.code, turns], [0, Array.from({ length: 100 }, (_, i) => String(i))], `${way}: a stream each way, in turns`);
}

async function ends() {
  const { problem, status } = await once("Fail", "wrong: 漢字 50 %", { "x-code": "9", "x-echo-why": "because" });
  const details = status.metadata.get("grpc-status-details-bin")[0]?.length > 20;
  const got = [problem?.code, problem?.details, status.metadata.get("x-trail-why")[0], details];
  equal(got, [9, "wrong: 漢字 50 %", "because", true], `${way}: an error with text, metadata and details`);
  const broken = await rest(client.Break(message("in the middle"), metadata({ "x-code": "14" })));
  equal([broken.values, broken.status.code], [["one"], 14], `${way}: an error after a message`);

  const late = await once("Hang", "", {}, { deadline: Date.now() + 300 });
  equal(late.problem?.code, grpc.status.DEADLINE_EXCEEDED, `${way}: a deadline passes`);
  const stay = client.Stay(message(""));
  const left = rest(stay);
  await new Promise((resolve) => stay.once("data", resolve));
  stay.cancel();
  equal((await left).status.code, grpc.status.CANCELLED, `${way}: a stream is cancelled`);
  const both = async () => ["Hang cancelled", "Stay cancelled"].every((e) => seen.includes(e));
  let seen = "";
  const heard = await happens(async () => ((seen = (await once("Ended", "")).value ?? ""), both()));
  check(heard, `${way}: and the server hears of both`, seen);
}

for (const each of [calls, ends]) {
  await each().catch((problem) => check(false, `${way}: ${each.name}`, problem));
}
client.close();
