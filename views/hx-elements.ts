/** Types for what htmx adds to HTML: the `<hx-partial>` element of its responses. */
declare global {
  namespace JSX {
    interface IntrinsicElements {
      /** A part of a response with a target of its own. */
      "hx-partial": HtmlTag & { "hx-target": string; "hx-swap": string };
    }
  }
}

export {};
