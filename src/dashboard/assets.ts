/**
 * What the pages load, all of it served by this process. The address holds a hash of the content, so
 * that a browser may keep it for ever and still gets the new one after an upgrade.
 */
import { readFileSync } from "node:fs";
import htmxPath from "htmx.org/dist/htmx.min.js" with { type: "file" };
import htmxSsePath from "htmx.org/dist/ext/hx-sse.min.js" with { type: "file" };
import iconPath from "../../views/favicon.svg" with { type: "file" };
import scriptPath from "../../views/flotilla.client.js" with { type: "file" };
import stylesheetPath from "../../views/flotilla.css" with { type: "file" };
import type { AssetUrls } from "../../views/layout.tsx";

interface Asset {
  readonly contentType: string;
  readonly body: Uint8Array<ArrayBuffer>;
}

export interface Assets {
  readonly urls: AssetUrls;
  /** Null: no such file. `name` is what follows `/assets/`. */
  respond(name: string): Response | null;
}

const SCRIPT = "text/javascript; charset=utf-8";

/** Reads the files once; a missing one fails the start, not a page. */
export function loadAssets(): Assets {
  const byName = new Map<string, Asset>();
  const add = (name: string, path: string, contentType: string): string => {
    const body = new Uint8Array(readFileSync(path));
    const hash = new Bun.CryptoHasher("sha256").update(body).digest("hex").slice(0, 12);
    const dot = name.indexOf(".");
    const hashed = `${name.slice(0, dot)}.${hash}${name.slice(dot)}`;
    byName.set(hashed, { contentType, body });
    return `/assets/${hashed}`;
  };
  const urls: AssetUrls = {
    stylesheet: add("flotilla.css", stylesheetPath, "text/css; charset=utf-8"),
    icon: add("favicon.svg", iconPath, "image/svg+xml"),
    scripts: [
      add("htmx.js", htmxPath, SCRIPT),
      add("hx-sse.js", htmxSsePath, SCRIPT),
      add("flotilla.js", scriptPath, SCRIPT),
    ],
  };
  return {
    urls,
    respond(name) {
      const asset = byName.get(name);
      if (asset === undefined) return null;
      return new Response(asset.body, {
        headers: {
          "Content-Type": asset.contentType,
          "Cache-Control": "public, max-age=31536000, immutable",
          "X-Content-Type-Options": "nosniff",
        },
      });
    },
  };
}
