// Labelled controls.
import { useId } from "preact/hooks";
import { html } from "./html.js";

export function Field({ label, hint, children, id }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children}
    ${hint && html`<small id=${`${id}-hint`}>${hint}</small>`}
  </div>`;
}

/** options: `[value, text]` each. */
export function Select({ label, hint, value, options, onChange }) {
  const id = useId();
  return html`<${Field} ...${{ label, hint, id }}>
    <select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([each, text]) => html`<option key=${each} value=${each} selected=${each === value}>${text}</option>`)}
    </select>
  <//>`;
}

/** A number in a range. shown: its text beside the slider. */
export function Slider({ label, hint, value, min, max, step, shown = value, onInput, onChange, disabled }) {
  const id = useId();
  const read = (event) => Number(event.target.value);
  return html`<${Field} ...${{ label, hint, id }}>
    <span class="slider">
      <input id=${id} type="range" ...${{ min, max, step, value, disabled }} aria-valuetext=${String(shown)}
        onInput=${(event) => onInput?.(read(event))} onChange=${(event) => onChange?.(read(event))} />
      <output for=${id}>${shown}</output>
    </span>
  <//>`;
}

/** A whole number. An entry outside [min, max] is ignored until it is mended. */
export function Integer({ label, hint, value, min = 0, max = Number.MAX_SAFE_INTEGER, onChange, children }) {
  const id = useId();
  return html`<${Field} ...${{ label, hint, id }}>
    <span class="joined">
      <input id=${id} type="number" inputmode="numeric" ...${{ min, max, value }} required
        onInput=${({ target }) => target.validity.valid && onChange(Number(target.value))} />
      ${children}
    </span>
  <//>`;
}
