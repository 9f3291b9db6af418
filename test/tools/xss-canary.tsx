/**
 * Text in a page without `safe`: the mistake that xss-scan.ts looks for. Rendered nowhere. A scan that does not
 * find it here is blind, and proves nothing about the real pages.
 */
import { Html } from "@elysiajs/html";

export function Unescaped({ text }: { readonly text: string }) {
  return <p>{text}</p>;
}
