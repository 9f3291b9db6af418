/**
 * IP addresses as numbers: parsing, CIDR blocks, and which of them belong to the public internet. Without
 * `isIP` of node:net: loading that module takes longer than all else that a Worker's start needs.
 */

/** 32 or 128 bits. */
export interface IpAddress {
  readonly family: 4 | 6;
  readonly bits: bigint;
}

export interface CidrBlock {
  readonly network: IpAddress;
  readonly prefix: number;
}

/** Null for anything but a plain address; zones ("fe80::1%eth0") are none. */
export function parseIp(text: string): IpAddress | null {
  if (IPV4.test(text)) return { family: 4, bits: ipv4Bits(text) };
  // The parser of URLs takes the same addresses; only their characters can be in the brackets.
  return IPV6_CHARACTERS.test(text) && URL.canParse(`http://[${text}]/`)
    ? { family: 6, bits: ipv6Bits(text) }
    : null;
}

/** Four decimal bytes without leading zeros. */
const IPV4 = /^(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;
const IPV6_CHARACTERS = /^[0-9a-f:.]{2,45}$/i;

/** "10.0.0.0/8", or one address. Null when malformed; host bits that are set are ignored. */
export function parseCidr(text: string): CidrBlock | null {
  const [address = "", prefixText, ...more] = text.split("/");
  const network = parseIp(address);
  if (network === null || more.length > 0) return null;
  const width = network.family === 4 ? 32 : 128;
  if (prefixText === undefined) return { network, prefix: width };
  if (!/^\d{1,3}$/.test(prefixText) || Number(prefixText) > width) return null;
  return { network, prefix: Number(prefixText) };
}

export function contains(block: CidrBlock, address: IpAddress): boolean {
  if (block.network.family !== address.family) return false;
  const shift = BigInt((address.family === 4 ? 32 : 128) - block.prefix);
  return block.network.bits >> shift === address.bits >> shift;
}

function blocks(...texts: string[]): readonly CidrBlock[] {
  return texts.map((text) => {
    const block = parseCidr(text);
    if (block === null) throw new Error(`malformed block ${text}`);
    return block;
  });
}

/** IANA's special-purpose IPv4 blocks, and cloud metadata that lives outside them. */
const IPV4_REFUSED = blocks(
  "0.0.0.0/8", // this network; 0.0.0.0 reaches the own host
  "10.0.0.0/8", // private
  "100.64.0.0/10", // carrier-grade NAT; some clouds' metadata
  "127.0.0.0/8", // loopback
  "168.63.129.16/32", // Azure's host agent
  "169.254.0.0/16", // link-local; most clouds' metadata
  "172.16.0.0/12", // private
  "192.0.0.0/24", // protocol assignments; Oracle's metadata
  "192.0.2.0/24", // documentation
  "192.88.99.0/24", // 6to4 relays
  "192.168.0.0/16", // private
  "198.18.0.0/15", // benchmarks
  "198.51.100.0/24", // documentation
  "203.0.113.0/24", // documentation
  "224.0.0.0/4", // multicast
  "240.0.0.0/4", // reserved; broadcast
);

/** All that is public in IPv6, but for the blocks below. Loopback, unique-local, link-local, multicast,
 * IPv4-mapped and -compatible, and NAT64 addresses are outside it. */
const IPV6_PUBLIC = blocks("2000::/3");
const IPV6_REFUSED = blocks(
  "2001::/23", // protocol assignments, Teredo and ORCHID among them
  "2001:db8::/32", // documentation
  "2002::/16", // 6to4: an IPv4 address in disguise
  "3fff::/20", // documentation
);

/** Nobody's own network, as far as an address can tell. */
export function isPublic(address: IpAddress): boolean {
  const inside = (block: CidrBlock): boolean => contains(block, address);
  if (address.family === 4) return !IPV4_REFUSED.some(inside);
  return IPV6_PUBLIC.some(inside) && !IPV6_REFUSED.some(inside);
}

function ipv4Bits(text: string): bigint {
  return text.split(".").reduce((bits, part) => (bits << 8n) | BigInt(part), 0n);
}

function ipv6Bits(text: string): bigint {
  // A dotted tail becomes two groups.
  const plain = text.replace(/\d+\.\d+\.\d+\.\d+$/, (tail) => {
    const bits = ipv4Bits(tail);
    return `${(bits >> 16n).toString(16)}:${(bits & 0xffffn).toString(16)}`;
  });
  const [head = "", tail] = plain.split("::");
  const groupsOf = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const before = groupsOf(head);
  const after = tail === undefined ? [] : groupsOf(tail);
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length;
  const groups = [...before, ...Array.from({ length: zeros }, () => "0"), ...after];
  return groups.reduce((bits, group) => (bits << 16n) | BigInt(`0x${group}`), 0n);
}
