// Verifies requests as a receiver written in JavaScript does: JSON lines {secret, body (base64), headers} on stdin,
// for each "ok", or the error, on stdout.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, body, headers } = JSON.parse(line);
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64").toString(), headers);
    console.log("ok");
  } catch (error) {
    console.log(`${error.name}: ${error.message}`);
  }
}
