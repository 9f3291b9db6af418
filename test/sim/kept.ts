/** What is kept under an idempotency key, as the simulator knows it: on its own, so that a wrong rule does not hide itself. */
import type { Answer } from "../../src/queue/commands.ts";

/** One that did something: no refusal, no claim that found nothing, no ends of which each was refused. */
export function keeps(answer: Answer): boolean {
  if (!answer.ok) return false;
  const { value } = answer;
  if (value.type === "claimed") return value.tasks.length > 0;
  return value.type !== "ended" || value.items.includes("ok") || value.items.includes("cancelled");
}
