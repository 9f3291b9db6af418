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

test("events of one moment come in the order in which they were asked for, those of before it first", async () => {
  const world = new World(1);
  const came: string[] = [];
  const says = (word: string) => (): void => void came.push(word);
  world.at(5, () => {
    came.push("first");
    world.at(5, says("now"));
    world.at(4, says("what is past comes now, too"));
    world.at(6, says("later"));
    world.at(5, says("now again"));
  });
  world.at(5, says("of before"));
  await world.run(10);
  expect(came).toEqual([
    "first",
    "of before",
    "now",
    "what is past comes now, too",
    "now again",
    "later",
  ]);
});
