// A path between two latents in two ways, one below the other, to play.
import { useEffect, useState } from "preact/hooks";
import { interpolateBetween } from "../client.js";
import { update } from "../state.js";
import { useAnswer } from "./answer.js";
import { number } from "./controls.js";
import { Select, Slider } from "./field.js";
import { html } from "./html.js";
import { ProblemNotice } from "./notice.js";
import { Picture } from "./picture.js";
import { length } from "./plane.js";

const STEPS = 10;
const STEP_MS = 200;
const PATHS = { ab: "A to B", bc: "B to C", ca: "C to A" };
const WAYS = { lerp: "along a straight line", slerp: "along a great circle" };

/** latents: of the anchors by key. */
export function Paths({ model, label, latents, params }) {
  const path = params.path in PATHS ? params.path : "ab";
  const ends = [...path].map((key) => latents[key]);
  const known = ends.every(Boolean);
  const { answer, problem, pending, retry } = useAnswer(
    async (signal) => {
      const asked = { model: model.name, from_latent: ends[0], to_latent: ends[1], label, steps: STEPS };
      const strips = {};
      for (const way of Object.keys(WAYS)) strips[way] = (await interpolateBetween({ ...asked, path: way }, signal)).images;
      return strips;
    },
    known && [model.name, ends, label],
    true,
  );
  const [playing, setPlaying] = useState(null); // the step
  const kept = Math.min(Math.max(Math.round(number(params.step, 1)), 1), STEPS);
  const step = playing ?? kept;
  useEffect(() => {
    if (playing === null) return;
    const timer = setTimeout(() => setPlaying((playing % STEPS) + 1), STEP_MS);
    return () => clearTimeout(timer);
  }, [playing]);
  const stop = (at = step) => {
    setPlaying(null);
    update({ step: at });
  };

  return html`<section class="paths" aria-labelledby="paths">
    <h2 id="paths">A path</h2>
    <p class="about">A straight line between latents of a normal distribution leads through shorter ones, which a model hardly knows; a great circle does
      not. It leaves the plane on its way. Between latents of a fitted prior the straight line is the usual one.</p>
    <div class="controls">
      <${Select} label="Path" value=${path} options=${Object.entries(PATHS)} onChange=${(value) => update({ path: value })} />
      <${Slider} label="Step" min="1" max=${STEPS} step="1" value=${step} shown=${`${step} of ${STEPS}`} disabled=${!answer} onInput=${stop} />
      <button type="button" class="play" disabled=${!answer} onClick=${() => (playing === null ? setPlaying(step) : stop())}>
        ${playing === null ? "Play" : "Pause"}</button>
    </div>
    <${ProblemNotice} problem=${problem} retry=${retry} />
    <div class="rows" aria-busy=${pending}>
      ${Object.entries(WAYS).map(([way, meaning]) => html`<article key=${way} class="row" aria-label=${way}>
        <header>
          <h3>${way}</h3><span class="kind">${meaning}</span>
          ${known && html`<p class="hint">latent ${lengths(ends, way)}</p>`}
        </header>
        <div class="stepped">
          <${Picture} png=${answer?.[way][step - 1].png} alt=${answer ? `${way}, step ${step}` : "not there yet"} size="large" />
          <ul class="strip">
            ${Array.from({ length: STEPS }, (_, i) => html`<li key=${i} class=${i + 1 === step ? "current" : ""}>
              <${Picture} png=${answer?.[way][i].png} alt=${answer ? `${i + 1} of ${STEPS}` : "not there yet"} size="small" /></li>`)}
          </ul>
        </div>
      </article>`)}
    </div>
  </section>`;
}

/** What happens to the length of the latents, in words. */
function lengths([a, b], way) {
  const sum = length(a.map((value, i) => value + b[i]));
  const cosine = a.reduce((all, value, i) => all + value * b[i], 0) / (length(a) * length(b));
  const middle = way === "lerp" ? sum / 2 : sum / (2 * Math.cos(Math.acos(Math.min(Math.max(cosine, -1), 1)) / 2));
  const shown = [length(a), middle, length(b)].map((value) => (Number.isFinite(value) ? value.toFixed(1) : "–"));
  return `length ${shown[0]}, in the middle ${shown[1]}, at the end ${shown[2]}`;
}
