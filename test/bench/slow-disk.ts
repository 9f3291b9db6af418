/**
 * Put into a member with `bun --preload`, to give it the log of a slower disk: its log thread loads slow-log.ts first,
 * where every commit waits. Nothing in src/ knows of it, and no flag of a member reaches it.
 */
const RealWorker = globalThis.Worker;

globalThis.Worker = class SlowLogWorker extends RealWorker {
  constructor(url: string | URL, options?: WorkerOptions) {
    const isLog = String(url).endsWith("/storage/log-thread.ts");
    super(url, isLog ? { ...options, preload: [`${import.meta.dir}/slow-log.ts`] } : options);
  }
};
