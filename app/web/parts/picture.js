// Images, large and crisp.
import { useEffect, useRef } from "preact/hooks";
import { html } from "./html.js";
import { dataUrl, greyValues, pngBlob } from "./pixels.js";

/** png: base64. alt: empty for a picture that says nothing more. size: a class of the style sheet: small, middle, large. */
export function Picture({ png, alt, size = "middle" }) {
  if (!png) return html`<span class=${`digit empty ${size}`} role=${alt ? "img" : undefined} aria-label=${alt || undefined}></span>`;
  return html`<img class=${`digit ${size}`} src=${dataUrl(png)} alt=${alt} />`;
}

export function Figure({ caption, children }) {
  return html`<figure>${children}<figcaption>${caption}</figcaption></figure>`;
}

// Too dark and too bright, in colours that also differ for the colour-blind.
const MISSING = [64, 156, 255];
const ADDED = [255, 140, 40];

/** The difference of two PNGs, a pixel each: blue where the second lacks ink, orange where it has too much. */
export function ErrorMap({ first, second, alt, size = "middle" }) {
  const element = useRef(null);
  useEffect(() => {
    let current = true;
    Promise.all([first, second].map((png) => greyValues(pngBlob(png)))).then(([a, b]) => {
      if (!current || !element.current || a.values.length !== b.values.length) return;
      const { width, height } = a;
      Object.assign(element.current, { width, height });
      const context = element.current.getContext("2d");
      const pixels = context.createImageData(width, height);
      for (let i = 0; i < width * height; i++) {
        const difference = (b.values[i] - a.values[i]) / 255;
        const colour = difference < 0 ? MISSING : ADDED;
        for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = colour[c] * Math.abs(difference);
        pixels.data[4 * i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
    });
    return () => (current = false);
  }, [first, second]);
  return html`<canvas ref=${element} class=${`digit ${size}`} width="1" height="1" role="img" aria-label=${alt}></canvas>`;
}
