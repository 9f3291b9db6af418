/** `fail {message?, retryable?}`: always fails, to try retries and alerts out. */
import { NonRetryableError } from "../errors.ts";
import { payloadObject, refuseUnknownFields, type Handler } from "../handler.ts";

export const fail: Handler = (payload) => {
  const fields = payload === null ? {} : payloadObject(payload, "fail");
  refuseUnknownFields(fields, ["message", "retryable"], "fail");
  const { message = "failed as asked", retryable = true } = fields;
  if (typeof message !== "string")
    throw new NonRetryableError("fail: payload.message must be a string");
  if (typeof retryable !== "boolean")
    throw new NonRetryableError("fail: payload.retryable must be true or false");
  throw retryable ? new Error(message) : new NonRetryableError(message);
};
