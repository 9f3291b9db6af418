import { expect, test } from "bun:test";
import { goalsPage, type GoalsRun } from "./goals-page.ts";
import type { Row } from "./bench.ts";

const SETUP = { members: 3, payload: 200, linkMs: 0, fsyncMs: 0 };

function row(measure: string, median: number, more: Partial<Row> = {}): Row {
  const value = { median, min: median, max: median, n: 1 };
  return { measure, setup: SETUP, unit: "tasks/s", value, ...more };
}

function rate(median: number) {
  return { rate: { median, min: median, max: median, n: 1 } };
}

const RUN: GoalsRun = {
  conditions: {
    at: "2026-01-01T00:00:00.000Z",
    commit: "c",
    bun: "1",
    kernel: "k",
    cpu: "x",
    cores: 2,
    memoryGib: 1,
    filesystem: "ext4",
    fdatasyncUs: { p50: 1, p99: 2 },
    othersBefore: 0,
  },
  command: "goals",
  own: [
    {
      members: 3,
      rows: [
        row("submit, plain HTTP, 1 callers", 1_400),
        row("submit to start at 50/s, outside worker", 0.7, { unit: "ms", p50: 0.7, p99: 2.5 }),
      ],
      faults: [],
    },
    { members: 3, rows: [row("submit, plain HTTP, 1 callers", 1_800)], faults: [] },
  ],
  peers: [
    { name: "flotilla", figures: { e2eBatch: rate(40_000) } },
    { name: "rabbitmq-quorum", figures: { e2e: rate(10_000), submit: { "1": rate(1_366) } } },
  ],
  steps: [],
  faults: [],
};

test("a goal is held against the median of the rounds, and a met one is bold", () => {
  const page = goalsPage(RUN);
  expect(page).toContain(
    "| submits, plain HTTP, 1 caller, tasks/s | ≥ 1,500 | **1,600 (1,400–1,800)** | ≥ 4,000 | – | 1,366 |",
  );
});

test("less is better for times, and what was not measured is no met goal", () => {
  const page = goalsPage(RUN);
  expect(page).toContain("outside worker, p50, ms | ≤ 0.8 | **0.7** |");
  expect(page).toContain("outside worker, p99, ms | ≤ 2 | 2.5 |");
  expect(page).toContain("linearizable reads, leader, 64 callers, reads/s | ≥ 20,000 | – |");
});

test("this queue is compared with another one in the same harness only, and where that has no batches, it is said", () => {
  expect(goalsPage(RUN)).toContain(
    "how many times rabbitmq-quorum's single messages (other harness) | ≥ 3 | **4** |",
  );
  const peers = [...RUN.peers, { name: "bullmq-everysec", figures: { e2eBatch: rate(20_000) } }];
  expect(goalsPage({ ...RUN, peers })).toContain(
    "how many times bullmq-everysec (other harness) | ≥ 2 | **2** |",
  );
});
