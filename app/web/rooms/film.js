// Training film: what a model made after each epoch of its training, with its losses and figures.
import { useEffect, useRef, useState } from "preact/hooks";
import { useAnswer } from "../parts/answer.js";
import { Curve } from "../parts/curve.js";
import { Select, Slider } from "../parts/field.js";
import { html } from "../parts/html.js";
import { can, kind } from "../parts/models.js";
import { Hint, ProblemNotice } from "../parts/notice.js";
import { shippedHistory, shippedPicture } from "../parts/shipped.js";
import { update } from "../state.js";

const PLAY_MS = 8000; // of a whole film
const FASTEST_MS = 120; // a frame
const SLOWEST_MS = 500;

export const room = {
  id: "film",
  order: 5,
  title: "Training film",
  about: "What a model made after each epoch of its training.",
  operations: ["model_history", "model_picture"],
  shown: (models) => models.some((model) => model.history),
  receive: ({ model }) => ({ model }),
  Room: TrainingFilm,
};

const isFilmed = (model) => model.pictures.includes("film");

function TrainingFilm({ models, params }) {
  const recorded = models.filter((model) => model.history);
  const best = (model) => isFilmed(model) && !model.sequential && !model.priors.includes("fitted"); // see `caption`
  const first = recorded.find(best) ?? recorded.find(isFilmed) ?? recorded[0];
  const model = params.model === undefined ? first : models.find(({ name }) => name === params.model);
  const options = recorded.map(({ name }) => [name, name]);
  if (!model?.history) options.unshift(["", "choose a model"]);
  const choice = html`<${Select} label="Model" value=${model?.history ? model.name : ""} options=${options}
    onChange=${(name) => name && update({ model: name, epoch: undefined })} />`;
  if (model?.history) return html`<${Player} key=${model.name} ...${{ model, params }}>${choice}<//>`;
  return html`<div class="film">
    <div class="transport">${choice}</div>
    <p class="notice" role="status">${model ? `The checkpoint of ${model.name} ships no history of its training.` : "This model is not loaded."} Choose another one.</p>
  </div>`;
}

function Player({ model, params, children }) {
  const key = [model.name, model.digest];
  const { answer: history, problem, retry } = useAnswer(() => shippedHistory(model), key);
  const film = useAnswer(async () => createImageBitmap(await shippedPicture(model, "film")), isFilmed(model) ? key : null);
  const [moving, setMoving] = useState(null); // the epoch while it changes fast; the address follows when it rests
  const [playing, setPlaying] = useState(false);

  const last = history?.epochs.length ?? 1;
  const asked = Math.round(Number(params.epoch));
  const epoch = Math.min(Math.max(moving ?? (asked || 1), 1), last);
  const stops = history?.film.length ? history.film : Array.from({ length: last }, (_, i) => i + 1);
  const rest = (at) => {
    setPlaying(false);
    setMoving(null);
    update({ epoch: at });
  };
  useEffect(() => {
    if (!playing) return;
    const next = stops.find((each) => each > epoch);
    if (next === undefined) return rest(epoch);
    const timer = setTimeout(() => setMoving(next), Math.min(Math.max(PLAY_MS / stops.length, FASTEST_MS), SLOWEST_MS));
    return () => clearTimeout(timer);
  }, [playing, epoch]);
  const play = () => {
    if (epoch >= stops.at(-1)) setMoving(stops[0]);
    setPlaying(true);
  };

  if (!history)
    return html`<div class="film">
      <div class="transport">${children}</div>
      ${problem ? html`<${ProblemNotice} ...${{ problem, retry }} />` : html`<p class="hint" role="status">Loading the film…</p>`}
    </div>`;
  const names = [...new Set(history.epochs.flatMap(Object.keys))].filter((name) => name !== "epoch");
  const shown = history.film.findLast((each) => each <= epoch) ?? history.film[0];
  return html`<div class="film">
    <div class="transport">
      ${children}
      <button type="button" class="play" disabled=${stops.length < 2} onClick=${() => (playing ? rest(epoch) : play())}>${playing ? "Pause" : "Play"}</button>
      <${Slider} label="Epoch" min="1" max=${last} step="1" value=${epoch} shown=${`${epoch} of ${last}`}
        onInput=${(at) => (setPlaying(false), setMoving(at))} onChange=${rest} />
      <button type="button" aria-pressed=${epoch === history.exported} onClick=${() => rest(history.exported)}>Exported epoch: ${history.exported}</button>
    </div>
    <div class=${isFilmed(model) ? "screen" : "curves-only"}>
      <div class="frame">
        <${ProblemNotice} problem=${film.problem} retry=${film.retry} />
        ${isFilmed(model)
          ? html`<${Frame} bitmap=${film.answer} count=${history.film.length} index=${history.film.indexOf(shown)} alt=${`What ${model.name} made after epoch ${shown}`} />
              <p class="hint"><strong>${model.name}</strong> · ${kind(model)}. ${caption(model, shown)}</p>`
          : html`<${Hint}><strong>${model.name}</strong> · ${kind(model)}. This checkpoint ships no images of its epochs${makesImages(model) ? "" : ": it makes none"}.<//>`}
      </div>
      <div class="curves">
        ${names.map((name) => html`<${Curve} key=${name} rows=${history.epochs} ...${{ name, epoch }} exported=${history.exported} />`)}
        <p class="hint legend">Dashed: epoch ${history.exported}, whose weights are served.${names.includes("frechet_distance") && " The figures compare images with training images; the test images have no part in the choice of an epoch."}</p>
      </div>
    </div>
  </div>`;
}

const makesImages = (model) => can(model, "generate") || can(model, "upscale") || can(model, "decode");

function caption(model, epoch) {
  if (!can(model, "generate")) {
    return can(model, "upscale")
      ? `Test images after epoch ${epoch}, from above: the input, bicubic interpolation, the model's, and the original.`
      : `Test images above their reconstructions after epoch ${epoch}.`;
  }
  const fitted = model.priors.includes("fitted") ? " It is drawn from N(0, I): the prior that was fitted later, with which images look better, has no part in it." : "";
  return `Images after epoch ${epoch}, all from the same noise.${fitted}`;
}

/** A frame of a strip of `count` of them, large and crisp. */
function Frame({ bitmap, count, index, alt }) {
  const element = useRef(null);
  useEffect(() => {
    if (!bitmap) return;
    const height = bitmap.height / count;
    Object.assign(element.current, { width: bitmap.width, height });
    element.current.getContext("2d").drawImage(bitmap, 0, -index * height);
  }, [bitmap, count, index]);
  return html`<canvas ref=${element} class="shipped" width="5" height="4" role="img" aria-label=${alt} />`;
}
