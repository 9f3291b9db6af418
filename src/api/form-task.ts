/** A submit that comes from a form instead of a JSON body: the same schema, the same limits, the same defaults. */
import type { NewTask } from "../queue/types.ts";
import { checkTasks, newTasks, type Minting } from "./new-task.ts";
import { Problem, type FieldError } from "./problem.ts";
import { JsonFault, parseKeeping } from "./raw-json.ts";
import { Submit } from "./schema.ts";
import { validate } from "./validation.ts";

/** Fields that are absent take their defaults. */
export interface FormSubmit {
  readonly name: string;
  /** JSON text, kept as it is; blank: no payload. */
  readonly payloadText: string;
  readonly queue?: string;
  readonly priority?: number;
  readonly max_retries?: number;
  /** RFC 3339. */
  readonly run_at?: string;
}

export interface FormErrors {
  readonly errors: readonly { readonly field: string; readonly detail: string }[];
}

/** The task, ready to submit, or what is wrong with each field. */
export function taskFromForm(input: FormSubmit, minting: Minting): NewTask | FormErrors {
  const { payloadText, ...rest } = input;
  try {
    const payload = payloadText.trim() === "" ? {} : { payload: parseKeeping(payloadText, [[]]) };
    const errors: FieldError[] = [];
    const body = validate(Submit, { ...rest, ...payload }, errors);
    if (body !== null) checkTasks([body], minting, () => "");
    const [task] = body === null ? [] : newTasks([body], minting);
    return task ?? formErrors(errors);
  } catch (error) {
    if (error instanceof JsonFault) {
      return { errors: [{ field: "payload", detail: error.message.replace("The body", "This") }] };
    }
    if (error instanceof Problem) return formErrors(error.errors);
    throw error;
  }
}

function formErrors(errors: readonly FieldError[]): FormErrors {
  return {
    errors: errors.map(({ pointer, detail }) => ({ field: pointer.split("/")[1] ?? "", detail })),
  };
}
