// Sample: one seed through every model that generates.
import { useEffect, useRef, useState } from "preact/hooks";
import { classify, generate } from "../client.js";
import { useAnswer } from "../parts/answer.js";
import { Probabilities } from "../parts/bars.js";
import { Controls, Pager, options, readControls } from "../parts/controls.js";
import { Figures } from "../parts/figures.js";
import { html } from "../parts/html.js";
import { can, kind, sameForm } from "../parts/models.js";
import { Hint, ProblemNotice, Spoken } from "../parts/notice.js";
import { Picture } from "../parts/picture.js";
import { pngBlob } from "../parts/pixels.js";
import { Shipped } from "../parts/shipped.js";
import { link, update } from "../state.js";

const COUNT = 10;

export const room = {
  id: "sample",
  order: 2,
  title: "Sample",
  about: "One seed through every model that generates.",
  operations: ["generate"],
  shown: (models) => models.some((model) => can(model, "generate")),
  Room: Sample,
};

function Sample({ models, offers, params, rooms }) {
  const generators = models.filter((model) => can(model, "generate"));
  const controls = readControls(params);

  return html`<div class="sample">
    <${Controls} models=${generators} controls=${controls} />
    <div class="above">
      <div class="about">
        <p>A seed is not the same idea in each model: image 3 of one has nothing to do with image 3 of another.</p>
        <details><summary>What the figures say</summary>
          <p>They are those of the model's card at these controls, measured against test images. Precision is the share of its images that look
            real, recall the share of real images that it could have made. The Fréchet distance is between the two sets; lower is closer.</p></details>
      </div>
      <${Pager} first=${controls.first} count=${COUNT} />
    </div>
    <div class="rows">
      ${generators.map((model) => html`<${Row} key=${model.name} ...${{ model, models, controls, offers, rooms, open: params.open }} />`)}
    </div>
  </div>`;
}

function Row({ model, models, controls, offers, rooms, open }) {
  const [wanted, setWanted] = useState(!model.sequential); // a sequential model takes seconds: only on demand
  const asked = options(model, controls);
  const { answer, problem, pending, retry } = useAnswer(
    (signal) => generate({ ...asked, n: COUNT }, signal),
    wanted ? [asked] : null,
    true,
  );
  const [, opened] = (open ?? "").match(new RegExp(`^${model.name}\\.(\\d+)$`)) ?? [];
  const image = opened !== undefined && answer?.images.find(({ index }) => index === Number(opened));
  return html`<article class="row" aria-label=${model.name} aria-busy=${pending}>
    <header>
      <h2 class="name">${model.name}</h2><span class="kind">${kind(model)}</span>
      <${Figures} ...${{ model, asked }} />
    </header>
    <div class="strip">
      ${wanted
        ? Array.from({ length: COUNT }, (_, i) => {
            const made = answer?.images[i];
            const name = made ? describe(model, controls.seed, made) : "not there yet";
            return html`<button key=${i} type="button" class="tile" disabled=${!made} aria-label=${name}
              onClick=${() => update({ open: `${model.name}.${made.index}` })}>
              <${Picture} png=${made?.png} alt="" />
              ${made?.label && html`<span class="tile-label">${made.label}</span>`}
            </button>`;
          })
        : html`<p class="hint">This model draws an image pixel by pixel or in many passes, which takes seconds.</p>
            <button type="button" onClick=${() => setWanted(true)}>Generate ${COUNT}</button>`}
    </div>
    <${ProblemNotice} problem=${problem} retry=${retry} />
    ${image && html`<${Opened} ...${{ model, models, asked, image, offers, rooms, seed: controls.seed }} />`}
  </article>`;
}

const describe = (model, seed, { index, label }) =>
  `Image ${index} of seed ${seed} by ${model.name}${label ? `, label ${label}` : ""}`;

/** One image, large. */
function Opened({ model, models, asked, image, offers, rooms, seed }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const close = () => update({ open: undefined });
  const reader = offers("classify") && models.find((each) => can(each, "classify") && sameForm(each, model));
  const read = useAnswer(
    (signal) => classify(pngBlob(image.png), { model: reader.name, normalize: false }, signal),
    reader ? [image.png] : null,
  );
  const result = read.answer?.results[0];
  const picture = { ...image, model: model.name, seed, options: asked, models };
  const receivers = rooms.filter((room) => room.receive && room.receive(picture));
  return html`<dialog ref=${dialog} aria-labelledby="opened" onClose=${close}
      onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    <div class="opened">
      <${Picture} png=${image.png} alt=${describe(model, seed, image)} size="huge" />
      <div>
        <h2 id="opened">${model.name}, image ${image.index}</h2>
        <dl class="numbers">
          <div><dt>seed</dt><dd>${seed}</dd></div>
          <div><dt>index</dt><dd>${image.index}</dd></div>
          ${image.label && html`<div><dt>label</dt><dd>${image.label}</dd></div>`}
        </dl>
        ${reader && html`<h3>${reader.name} ${result && html`<span class="kind">reads <strong>${result.label}</strong></span>`}</h3>
          <${ProblemNotice} problem=${read.problem} retry=${read.retry} />
          ${result && html`<${Probabilities} probabilities=${result.probabilities} />
            <${Spoken}>${`${reader.name} reads ${result.label}`}<//>`}`}
        ${!reader && html`<${Hint}>No loaded classifier reads such images.<//>`}
        ${model.pictures.includes("neighbours") && html`<${Neighbours} model=${model} />`}
        <div class="tools">
          ${receivers.map((room) => html`<a key=${room.id} class="button" href=${link(room.id, room.receive(picture))}>Send to ${room.title}</a>`)}
          <button type="button" onClick=${() => dialog.current.close()}>Close</button>
        </div>
      </div>
    </div>
  </dialog>`;
}

/** Whether the model copies: other images of it, above the training images that are nearest to them. */
function Neighbours({ model }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}>
    <summary>Nearest training images of samples, from the card</summary>
    ${open && html`<${Shipped} model=${model} name="neighbours" alt=${`Thirty images of ${model.name}, each above the negative of its nearest training image`} />
      <p class="hint">Images of another seed, each above the negative of the training image that is nearest to it.</p>`}
  </details>`;
}
