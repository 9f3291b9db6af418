/** `sleep {ms}`: waits, and ends early with the signal's reason when it is aborted. */
import { NonRetryableError } from "../errors.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";

const SLEEP_MAX_MS = 86_400_000;

/** Result `{ms}`. */
export const sleep: Handler = async (payload, { signal }) => {
  const fields = payloadObject(payload, "sleep");
  refuseUnknownFields(fields, ["ms"], "sleep");
  const { ms } = fields;
  if (typeof ms !== "number" || !(ms >= 0 && ms <= SLEEP_MAX_MS))
    throw new NonRetryableError(`sleep: payload.ms must be a number from 0 to ${SLEEP_MAX_MS}`);
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, ms);
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", abort, { once: true });
  });
  return { ms };
};
