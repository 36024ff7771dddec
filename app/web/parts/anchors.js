// A point of latent space that a person chooses: the latent of a seed, of a class, or of a drawing.
//
// In an address the anchor `a` is `a.class=NAME`, `a.ink=STROKES`, or `a.seed=S&a.index=I` with sampling options.
import { useState } from "preact/hooks";
import { generate, reconstruct } from "../client.js";
import { update } from "../state.js";
import { useAnswer } from "./answer.js";
import { newSeed, number } from "./controls.js";
import { decodeStrokes, encodeStrokes, painted } from "./drawing.js";
import { Integer, Select } from "./field.js";
import { html } from "./html.js";
import { encodes } from "./models.js";
import { ProblemNotice } from "./notice.js";
import { Pad } from "./pad.js";
import { Figure, Picture } from "./picture.js";
import { toPng } from "./pixels.js";

const CLASS_LATENTS = 32; // whose mean is the anchor of a class
const PARAMETERS = ["seed", "index", "label", "prior", "temperature", "truncation", "class", "ink"];
const NO_INK = "-";

/** Whether classes have places in the latent space. A conditional model has all classes everywhere. */
const placesClasses = (model) => !model.conditional && model.priors.includes("fitted");

/** The parameters of an address that make an anchor this one, and no other. */
export const anchorParams = (id, given) => Object.fromEntries(PARAMETERS.map((name) => [`${id}.${name}`, given[name]]));

function read(id, place, model, params) {
  const given = Object.fromEntries(PARAMETERS.map((name) => [name, params[`${id}.${name}`]]));
  if (given.ink !== undefined && encodes(model)) return { kind: "drawing", ink: given.ink };
  const unsaid = given.seed === undefined && place < model.classes.length;
  const name = given.class ?? (unsaid ? model.classes[place] : undefined);
  if (placesClasses(model) && model.classes.includes(name)) return { kind: "class", name };
  return {
    kind: "seed",
    seed: number(given.seed, 8),
    index: number(given.index, given.seed === undefined ? place : 0),
    label: model.classes.includes(given.label) ? given.label : undefined,
    prior: model.priors.includes(given.prior) ? given.prior : undefined,
    temperature: model.sampling.includes("temperature") ? number(given.temperature) : undefined,
    truncation: model.sampling.includes("truncation") ? number(given.truncation) : undefined,
  };
}

/** `{latent, png}` of an anchor. label: what a conditional model is told. */
const SOURCES = {
  async seed({ model, anchor: { kind, index, ...options }, label }, signal) {
    const { images } = await generate({ model: model.name, ...options, label: label ?? options.label, first: index, n: 1, return_latents: true }, signal);
    return images[0];
  },
  async class({ model, anchor: { name } }, signal) {
    const drawn = await generate({ model: model.name, label: name, prior: "fitted", seed: 0, n: CLASS_LATENTS, return_latents: true }, signal);
    const latents = drawn.images.map((image) => image.latent);
    const mean = latents[0].map((_, i) => latents.reduce((sum, each) => sum + each[i], 0) / latents.length);
    const { images } = await generate({ model: model.name, latents: [mean] }, signal);
    return { latent: mean, png: images[0].png };
  },
  async drawing({ model, anchor: { ink }, label }, signal) {
    const upload = toPng(painted(decodeStrokes(ink), null));
    const answer = await reconstruct(upload, { model: model.name, label }, signal);
    return { latent: answer.latent.mean, png: answer.reconstruction.png, warnings: answer.warnings };
  },
};

/** The anchor `id`, at this place among the three: what it is, and the answer with its latent. inTurn: as of `useTurns`. */
export function useAnchor(id, place, { model, params, label, inTurn }) {
  const [started, setStarted] = useState(null); // strokes, while one is drawn
  const anchor = read(id, place, model, params);
  if (started) anchor.ink = encodeStrokes(started);
  const blank = anchor.kind === "drawing" && !decodeStrokes(anchor.ink).length;
  const state = useAnswer(
    inTurn((signal) => SOURCES[anchor.kind]({ model, anchor, label }, signal)),
    blank ? null : [model.name, anchor, label],
    true,
  );
  return { id, anchor, setStarted, ...state };
}

export function Anchor({ id, anchor, answer, problem, retry, setStarted, model, offers }) {
  const set = (given) => update(anchorParams(id, given));
  const kinds = [["seed", "a seed"]];
  if (placesClasses(model)) kinds.push(["class", "a class"]);
  if (encodes(model) && offers("reconstruct")) kinds.push(["drawing", "a drawing"]);
  const first = { seed: { seed: newSeed() }, class: { class: model.classes[0] }, drawing: { ink: NO_INK } };
  const name = id.toUpperCase();
  const { kind, ...rest } = anchor;
  const strokes = decodeStrokes(anchor.ink ?? "");
  const said = ["label", "prior", "temperature", "truncation"].filter((each) => rest[each] !== undefined);
  return html`<section class="card anchor" aria-label=${`Anchor ${name}`}>
    <${Figure} caption=${html`<strong>${name}</strong>`}><${Picture} png=${answer?.png} alt=${answer ? `Image at ${name}` : "not there yet"} size="small" /><//>
    <div>
      ${kinds.length > 1 && html`<${Select} label=${`${name} is`} value=${kind} options=${kinds} onChange=${(value) => set(first[value])} />`}
      ${kind === "seed" && html`<div class="joined-fields">
          <${Integer} label="Seed" value=${anchor.seed} onChange=${(seed) => set({ ...rest, seed })} />
          <${Integer} label="Image" value=${anchor.index} onChange=${(index) => set({ ...rest, index })} />
        </div>
        ${said.length > 0 && html`<small>${said.map((each) => `${each} ${rest[each]}`).join(", ")}</small>`}`}
      ${kind === "class" && html`<${Select} label="Class" hint=${`mean of ${CLASS_LATENTS} latents`} value=${anchor.name}
        options=${model.classes.map((each) => [each, each])} onChange=${(value) => set({ class: value })} />`}
      ${kind === "drawing" && html`<${Pad} label=${`Drawing area of ${name}`} strokes=${strokes} picture=${null} onLive=${setStarted}
          onDone=${(strokes) => (setStarted(null), set({ ink: encodeStrokes(strokes) }))}>
          ${!strokes.length && html`<p class="invitation" aria-hidden="true">Draw here</p>`}
        <//>
        <button type="button" disabled=${!strokes.length} onClick=${() => set({ ink: NO_INK })}>Clear</button>
        ${answer?.warnings?.map((each) => html`<p key=${each.code} class="notice warning" role="status">${each.detail}</p>`)}`}
      <${ProblemNotice} problem=${problem} retry=${retry} />
    </div>
  </section>`;
}
