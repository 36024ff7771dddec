// The figures of a model's card: at some controls, and over the controls that were measured.
import { html } from "./html.js";
import { Hint } from "./notice.js";
import { figuresAt, useDetail } from "./quality.js";

const share = (value) => value.toFixed(2);
const SHOWN = [
  { key: "precision", name: "precision", format: share },
  { key: "recall", name: "recall", format: share },
  { key: "frechet_distance", name: "Fréchet", format: (value) => value.toFixed(value < 100 ? 1 : 0) },
];

/** asked: the options of `/generate`. */
export function Figures({ model, asked }) {
  const { detail } = useDetail(model);
  if (!detail) return null;
  const found = figuresAt(model, detail.manifest.quality, asked);
  if (!found) return html`<p class="hint">not measured${asked.prior ? " with this prior" : ""}</p>`;
  return html`<dl class="figures">
      ${SHOWN.map(({ key, name, format }) => found.figures[key] !== undefined && html`<div key=${key}><dt>${name}</dt><dd>${format(found.figures[key])}</dd></div>`)}
    </dl>
    ${found.at && html`<small class="measured">measured at ${found.at}</small>`}`;
}

/** What was measured with a prior, in the order of the control of the model. */
export function measuredOver(model, quality, prior = model.priors[0]) {
  const control = model.sampling[0];
  const at = (each) => each[control] ?? Infinity; // no truncation
  const measured = (quality?.controls ?? []).filter((each) => each.prior === prior && Object.keys(each.figures).length);
  return { control, measured: measured.sort((a, b) => at(a) - at(b)) };
}

/** Small plots over the control of a model. highest: of the Fréchet distances, so that plots beside each other have one scale. */
export function Plots({ model, quality, asked, highest }) {
  const { control, measured } = measuredOver(model, quality, asked.prior);
  if (measured.length < 2) return html`<${Hint}>The card has no figures over ${control ?? "sampling controls"}${asked.prior ? " with this prior" : ""}.<//>`;
  const names = measured.map((each) => String(each[control] ?? "none"));
  const now = names.indexOf(String(asked[control] ?? (control === "temperature" ? 1 : "none")));
  const scales = {
    precision: (value) => value,
    recall: (value) => value,
    // Logarithmic, from a tenth of what real images have.
    frechet_distance: (value) => Math.log(Math.max(1, 10 * value)) / Math.log(10 * highest),
  };
  return html`<div class="plots">
    ${SHOWN.map(({ key, name, format }) => {
      const values = measured.map(({ figures }) => figures[key]);
      if (values.some((value) => value === undefined)) return null;
      const title = `${name} (${key === "frechet_distance" ? "log" : "0–1"})`;
      return html`<figure key=${key}>
        <figcaption>${title}</figcaption>
        <${Plot} values=${values} scale=${scales[key]} floor=${quality.figures[key]?.floor} now=${now}
          label=${`${title}, over ${control}: ${names.map((each, i) => `${each}: ${format(values[i])}`).join(", ")}`} />
        <p class="ends" aria-hidden="true"><span>${names[0]}</span><span>${control}</span><span>${names.at(-1)}</span></p>
      </figure>`;
    })}
  </div>`;
}

const WIDTH = 160;
const HEIGHT = 64;
const MARGIN = 4;

/** scale: a value to [0, 1]. floor: what real images have. now: the index of the value to mark, -1 for none. */
function Plot({ values, scale, floor, now, label }) {
  const x = (i) => MARGIN + (i / (values.length - 1)) * (WIDTH - 2 * MARGIN);
  const y = (value) => HEIGHT - MARGIN - Math.min(Math.max(scale(value), 0), 1) * (HEIGHT - 2 * MARGIN);
  return html`<svg class="plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${label}>
    <line x1="0" x2=${WIDTH} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} />
    ${Number.isFinite(floor) && html`<line class="floor" x1="0" x2=${WIDTH} y1=${y(floor)} y2=${y(floor)} />`}
    <polyline points=${values.map((value, i) => `${x(i)},${y(value)}`).join(" ")} />
    ${values.map((value, i) => html`<circle key=${i} class=${i === now ? "now" : ""} cx=${x(i)} cy=${y(value)} r=${i === now ? 4 : 2} />`)}
  </svg>`;
}
