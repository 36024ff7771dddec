// The numbers of a latent, to pull.
import { html } from "./html.js";
import { Slider } from "./field.js";

const SHOWN = 64;
const UNUSED = -0.1; // log-variance of a posterior that hardly differs from the prior's

/** A latent as text for an address, and back: two decimals are more than an eye can tell apart. */
export const encodeLatent = (latent) => latent.map((value) => value.toFixed(2).replace(/\.?0+$/, "")).join("_");

export function decodeLatent(text, length) {
  const latent = (text ?? "").split("_").map(Number);
  return text && latent.length === length && latent.every(Number.isFinite) ? latent : null;
}

/** logVariance: of the posterior, null for a deterministic code. onInput(latent). */
export function Latents({ latent, logVariance, onInput }) {
  const reach = Math.max(3, Math.ceil(Math.max(...latent.map(Math.abs))));
  const pull = (index) => (value) => onInput(latent.map((each, i) => (i === index ? value : each)));
  return html`<div class="latents">
    ${latent.slice(0, SHOWN).map(
      (value, i) => html`<div key=${i} class=${logVariance?.[i] > UNUSED ? "unused" : ""}>
        <${Slider} label=${`z${i + 1}${logVariance?.[i] > UNUSED ? " (unused)" : ""}`} min=${-reach} max=${reach} step="0.05"
          value=${value} shown=${value.toFixed(1)} onInput=${pull(i)} />
      </div>`,
    )}
    ${latent.length > SHOWN && html`<p class="hint">The first ${SHOWN} of ${latent.length} numbers.</p>`}
  </div>`;
}
