/**
 * `compute {iterations, data}`: SHA-256 of `data`, applied again to its own hex digest, `iterations` times
 * in all. Work that keeps a core busy, and whose result anyone can check.
 */
import { NonRetryableError } from "../errors.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";

const ITERATIONS_MAX = 1_000_000_000;
/** A few milliseconds of hashing between two looks at the signal. */
const ITERATIONS_PER_SLICE = 4_096;

/** Result: the hex digest. Reports progress. */
export const compute: Handler = async (payload, context) => {
  const fields = payloadObject(payload, "compute");
  refuseUnknownFields(fields, ["iterations", "data"], "compute");
  const { iterations, data } = fields;
  if (typeof iterations !== "number" || !Number.isInteger(iterations))
    throw new NonRetryableError("compute: payload.iterations must be a whole number");
  if (iterations < 1 || iterations > ITERATIONS_MAX)
    throw new NonRetryableError(`compute: payload.iterations must be 1 to ${ITERATIONS_MAX}`);
  if (typeof data !== "string")
    throw new NonRetryableError("compute: payload.data must be a string");

  let digest = data;
  for (let done = 0; done < iterations;) {
    const sliceEnd = Math.min(iterations, done + ITERATIONS_PER_SLICE);
    for (; done < sliceEnd; done += 1)
      digest = new Bun.CryptoHasher("sha256").update(digest).digest("hex");
    if (done === iterations) break;
    context.progress((done / iterations) * 100);
    // The signal fires only while the handler yields.
    await new Promise((resolve) => setImmediate(resolve));
    context.signal.throwIfAborted();
  }
  return digest;
};
