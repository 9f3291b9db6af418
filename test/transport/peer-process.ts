/** A member "b" in a process of its own: prints its address and serves until it is killed. */
import { Member } from "./harness.ts";

const member = new Member("b");
console.log(member.url);
