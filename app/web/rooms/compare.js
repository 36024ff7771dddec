// Compare: two models side by side at one seed, with the figures of their cards.
import { useState } from "preact/hooks";
import { generate } from "../client.js";
import { useAnswer } from "../parts/answer.js";
import { Controls, Pager, options, readControls } from "../parts/controls.js";
import { Select } from "../parts/field.js";
import { Figures, Plots, measuredOver } from "../parts/figures.js";
import { html } from "../parts/html.js";
import { can, kind } from "../parts/models.js";
import { Hint, ProblemNotice } from "../parts/notice.js";
import { Picture } from "../parts/picture.js";
import { useDetail } from "../parts/quality.js";
import { update } from "../state.js";

const COUNT = 10;
const generators = (models) => models.filter((model) => can(model, "generate"));

export const room = {
  id: "compare",
  order: 4,
  title: "Compare",
  about: "Two models side by side: images of one seed, and their figures.",
  operations: ["generate"],
  shown: (models) => generators(models).length > 1,
  receive: ({ model, seed, options: { first, label, prior, temperature, truncation } }) => ({
    left: model,
    seed,
    first,
    label: label === "balanced" ? undefined : label,
    prior,
    temperature,
    truncation,
  }),
  Room: Compare,
};

function Compare({ models, params }) {
  const all = generators(models);
  const named = (name) => all.find((model) => model.name === name);
  const left = named(params.left) ?? all.find((model) => model.name !== params.right);
  const right = named(params.right) ?? all.find((model) => model !== left);
  const sides = [left, right];
  // The model of the other side changes places with this one.
  const choose = (side, name) =>
    update([left.name, right.name].includes(name) ? { left: right.name, right: left.name } : { [side]: name });
  const details = [useDetail(left), useDetail(right)];
  const controls = readControls(params);
  const asked = sides.map((model) => options(model, controls));
  const qualities = details.map(({ detail }) => detail?.manifest.quality);
  const distances = sides.flatMap((model, i) => [
    ...measuredOver(model, qualities[i], asked[i].prior).measured.map(({ figures }) => figures.frechet_distance),
    qualities[i]?.figures.frechet_distance?.floor,
  ]);
  const highest = Math.max(1, ...distances.filter(Number.isFinite));
  const choices = all.map(({ name }) => [name, name]);

  return html`<div class="compare">
    <${Controls} models=${sides} controls=${controls}>
      <div class="choices">
        <${Select} label="Left" value=${left.name} options=${choices} onChange=${(name) => choose("left", name)} />
        <${Select} label="Right" value=${right.name} options=${choices} onChange=${(name) => choose("right", name)} />
      </div>
    <//>
    <div class="above">
      <p class="about">A seed is not the same idea in each model: image 3 of one has nothing to do with image 3 of the other. A control that a
        model does not have does not change it.</p>
      <${Pager} first=${controls.first} count=${COUNT} />
    </div>
    <div class="sides">
      ${sides.map((model, i) => html`<${Side} key=${`${i} ${model.name}`} ...${{ model, asked: asked[i], quality: qualities[i], highest }} />`)}
    </div>
    ${details.map(({ problem }, i) => html`<${ProblemNotice} key=${i} problem=${problem} />`)}
    <${Cards} ...${{ sides, details }} />
  </div>`;
}

function Side({ model, asked, quality, highest }) {
  const [wanted, setWanted] = useState(!model.sequential); // a sequential model takes seconds: only on demand
  const { answer, problem, pending, retry } = useAnswer(
    (signal) => generate({ ...asked, n: COUNT }, signal),
    wanted ? [asked] : null,
    true,
  );
  return html`<article class="side" aria-label=${model.name} aria-busy=${pending}>
    <header><h2 class="name">${model.name}</h2><span class="kind">${kind(model)}</span></header>
    <${ProblemNotice} problem=${problem} retry=${retry} />
    ${wanted
      ? html`<ul class="strip">
          ${Array.from({ length: COUNT }, (_, i) => {
            const made = answer?.images[i];
            const alt = made ? `image ${made.index}${made.label ? `, label ${made.label}` : ""}` : "not there yet";
            return html`<li key=${i}><${Picture} png=${made?.png} alt=${alt} />
              ${made?.label && html`<span class="tile-label" aria-hidden="true">${made.label}</span>`}</li>`;
          })}
        </ul>`
      : html`<p class="hint">This model draws an image pixel by pixel or in many passes, which takes seconds.</p>
          <button type="button" onClick=${() => setWanted(true)}>Generate ${COUNT}</button>`}
    <${Figures} ...${{ model, asked }} />
    ${quality && html`<${Plots} ...${{ model, quality, asked, highest }} />`}
  </article>`;
}

const BETTER = { lower: "lower is better", higher: "higher is better", floor: "closer to real is better" };
const title = (name) => name.replaceAll("_", " ").replace("frechet", "Fréchet").replace(/\b(kl|elbo|rbm)\b/, (word) => word.toUpperCase());
const decimals = (value) => [100, 10, 1].filter((bound) => Math.abs(value) < bound).length;

/** The figures of both cards, which are those of the default prior without other controls. */
function Cards({ sides, details }) {
  if (!details.every(({ detail }) => detail)) return null;
  const manifests = details.map(({ detail }) => detail.manifest);
  const figures = manifests.map(({ quality }) => quality?.figures ?? {});
  const names = [...new Set(figures.flatMap(Object.keys))];
  if (!names.length) return html`<${Hint}>Neither card has measured figures.<//>`;
  const same = (value) => new Set(manifests.map((each) => JSON.stringify(value(each)))).size === 1;
  const comparable = same((each) => each.dataset.digest) && same((each) => each.image.shape) && same((each) => each.quality?.protocol);
  return html`<section class="cards-compared" aria-labelledby="figures">
    <h2 id="figures">Figures of the cards</h2>
    <p class="about">Measured with the default prior, without other controls. Below each one: the same figure for real images, in the plots the dashed line.</p>
    ${!comparable && html`<p class="notice warning">These two were measured on other data, at another size or by another protocol: their figures cannot be compared.</p>`}
    <table>
      <thead><tr><th scope="col">figure</th>${sides.map(({ name }, i) => html`<th key=${i} scope="col" class="number">${name}</th>`)}</tr></thead>
      <tbody>
        ${names.map((name) => html`<tr key=${name}>
          <th scope="row">${title(name)} <small>${BETTER[figures.find((each) => each[name])[name].better]}</small></th>
          ${figures.map((each, i) => html`<td key=${i} class="number">${each[name] ? html`<${Measured} ...${each[name]} />` : "–"}</td>`)}
        </tr>`)}
      </tbody>
    </table>
  </section>`;
}

function Measured({ value, deviation, floor }) {
  const error = (deviation ?? 0).toFixed(decimals(value));
  return html`${value.toFixed(decimals(value))}${Number(error) > 0 && html` <span class="unit">± ${error}</span>`}
    ${floor !== null && html`<small>real ${floor.toFixed(decimals(floor))}</small>`}`;
}
