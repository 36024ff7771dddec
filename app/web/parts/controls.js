// The controls of seeded images, shared by the rooms that sample, and what each model takes of them.
import { update } from "../state.js";
import { Integer, Select, Slider } from "./field.js";
import { html } from "./html.js";
import { classNames, hasLabels } from "./models.js";

const SEEDS = 100_000; // that a new seed is drawn from: short enough to be said aloud
const NO_TRUNCATION = 4;

export const newSeed = () => Math.floor(Math.random() * SEEDS);
export const number = (text, otherwise) => (text !== undefined && Number.isFinite(Number(text)) ? Number(text) : otherwise);

/** The controls of an address. */
export const readControls = (params) => ({
  seed: number(params.seed, 8),
  first: number(params.first, 0),
  label: params.label ?? "balanced",
  prior: params.prior,
  temperature: number(params.temperature, undefined),
  truncation: number(params.truncation, undefined),
});

/** The options of `/generate` that a model supports, of those in the controls. */
export function options(model, { seed, first, label, prior, temperature, truncation }) {
  const used = model.priors.includes(prior) ? prior : undefined;
  const labelled = hasLabels(model, used);
  const known = label === "balanced" || model.classes.includes(label);
  return {
    model: model.name,
    seed,
    first: first || undefined,
    label: labelled && known ? label : undefined,
    prior: used,
    temperature: model.sampling.includes("temperature") ? temperature : undefined,
    truncation: model.sampling.includes("truncation") ? truncation : undefined,
  };
}

// With other images, none is open.
const set = (changes) => update({ open: undefined, ...changes });

/** Those that at least one of the models supports. children: other controls before them. */
export function Controls({ models, controls, children }) {
  const supports = (control) => models.some((model) => model.sampling.includes(control));
  const classes = classNames(models.filter((model) => hasLabels(model)));
  return html`<div class="controls">
    ${children}
    <${Integer} label="Seed" value=${controls.seed} onChange=${(seed) => set({ seed })}>
      <button type="button" onClick=${() => set({ seed: newSeed() })}>New seed</button>
    <//>
    ${classes.length > 0 && html`<${Select} label="Label" value=${controls.label}
      options=${[["balanced", "each in turn"], ["any", "from the seed"], ...classes.map((name) => [name, name])]}
      onChange=${(label) => set({ label: label === "balanced" ? undefined : label })} />`}
    ${models.some((model) => model.priors.length > 1) && html`<${Select} label="Prior" value=${controls.prior ?? ""}
      options=${[["", "fitted, if any"], ["normal", "normal"]]} onChange=${(prior) => set({ prior })} />`}
    ${supports("temperature") && html`<${Slider} label="Temperature" min="0.1" max="2" step="0.1" value=${controls.temperature ?? 1}
      onInput=${(value) => set({ temperature: value === 1 ? undefined : value })} />`}
    ${supports("truncation") && html`<${Slider} label="Truncation" min="0.25" max=${NO_TRUNCATION} step="0.25" value=${controls.truncation ?? NO_TRUNCATION}
      shown=${controls.truncation ?? "none"}
      onInput=${(value) => set({ truncation: value === NO_TRUNCATION ? undefined : value })} />`}
  </div>`;
}

/** count: of the images on a page. */
export function Pager({ first, count }) {
  return html`<div class="pager" role="group" aria-label="Page">
    <button type="button" disabled=${first === 0} onClick=${() => update({ first: Math.max(0, first - count) || undefined })}>Back</button>
    <span>images ${first} to ${first + count - 1}</span>
    <button type="button" onClick=${() => update({ first: first + count })}>More</button>
  </div>`;
}
