import { expect, test } from "bun:test";
import { StandstillError, World } from "./world.ts";

test("a world in which one moment never ends is stopped", async () => {
  const world = new World(1);
  const again = (): void => world.at(world.now, again);
  again();
  // Caught here: a promise of a virtual clock has no place in expect.
  const error = await world.run(10).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(StandstillError);
});
