/**
 * Durations and sizes that the parts below report as they happen, kept as counts per bucket: an observation is a few
 * nanoseconds, and everything else is done when somebody scrapes.
 */
import { Histogram } from "./prometheus.ts";

export class SampledHistogram extends Histogram {
  readonly #name: string;
  readonly #bounds: readonly number[];
  /** One for each bound and one beyond them: not cumulative. */
  readonly #slots: Float64Array;
  /** Says what the family is; nothing is ever observed in it. */
  readonly #family: Histogram;
  #sum = 0;
  #count = 0;

  /** `buckets`: upper bounds, ascending. */
  constructor(name: string, help: string, buckets: readonly number[]) {
    const options = { name, help, buckets: [...buckets], registers: [] };
    super(options);
    this.#name = name;
    this.#bounds = buckets;
    this.#slots = new Float64Array(buckets.length + 1);
    this.#family = new Histogram(options);
  }

  sample(value: number): void {
    let slot = 0;
    while (slot < this.#bounds.length && value > (this.#bounds[slot] ?? 0)) slot++;
    this.#slots[slot] = (this.#slots[slot] ?? 0) + 1;
    this.#sum += value;
    this.#count += 1;
  }

  override async get() {
    let below = 0;
    const buckets = [...this.#bounds, Infinity].map((bound, slot) => {
      below += this.#slots[slot] ?? 0;
      const le = bound === Infinity ? "+Inf" : bound;
      return { metricName: `${this.#name}_bucket`, value: below, labels: { le } };
    });
    return {
      ...(await this.#family.get()),
      values: [
        ...buckets,
        { metricName: `${this.#name}_sum`, value: this.#sum, labels: {} },
        { metricName: `${this.#name}_count`, value: this.#count, labels: {} },
      ],
    };
  }

  /** What the registry asks instead of `get`. */
  getForPromString(): ReturnType<SampledHistogram["get"]> {
    return this.get();
  }
}
