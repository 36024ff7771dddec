// Walk: a plane through three points of the latent space of a model, decoded under the pointer.
import { useMemo, useState } from "preact/hooks";
import { classify, generate } from "../client.js";
import { Anchor, anchorParams, useAnchor } from "../parts/anchors.js";
import { useAnswer, useTurns } from "../parts/answer.js";
import { asPercent } from "../parts/bars.js";
import { number } from "../parts/controls.js";
import { Select } from "../parts/field.js";
import { html } from "../parts/html.js";
import { can, kind, sameForm } from "../parts/models.js";
import { Hint, ProblemNotice, Spoken } from "../parts/notice.js";
import { Paths } from "../parts/paths.js";
import { Figure, Picture } from "../parts/picture.js";
import { pngBlob } from "../parts/pixels.js";
import { AROUND, Plane, around, bounded, mapOf, planeThrough } from "../parts/plane.js";
import { update } from "../state.js";

// Models whose images change gradually with their latents, and that answer while the pointer moves.
const walks = (model) => can(model, "generate") && model.smooth_latents && !model.sequential;

export const room = {
  id: "walk",
  order: 3,
  title: "Walk",
  about: "A plane through three latents of a model, decoded under the pointer.",
  operations: ["generate", "interpolate_between"],
  shown: (models) => models.some(walks),
  receive({ models, model, seed, index, label, options: { prior, temperature, truncation } }) {
    const sender = models.find(({ name }) => name === model);
    if (!walks(sender)) return null;
    const anchor = { seed, index, prior, temperature, truncation, label: sender.conditional ? undefined : label };
    return { model, label: sender.conditional ? label : undefined, ...anchorParams("a", anchor) };
  },
  Room: Walk,
};

const BODY_BYTES = 14_000; // below what the service takes by default

/** The PNGs of latents, with as many requests, one after the other, as their length makes necessary. */
async function decoded(model, label, latents, signal) {
  const rows = latents.map((latent) => latent.map((value) => Number(value.toPrecision(3)))); // more is not to be seen
  const each = Math.max(1, Math.floor(BODY_BYTES / JSON.stringify(rows[0]).length / 1.1));
  const pngs = [];
  for (let i = 0; i < rows.length; i += each) {
    const { images } = await generate({ model: model.name, latents: rows.slice(i, i + each), label }, signal);
    pngs.push(...images.map(({ png }) => png));
  }
  return pngs;
}

function Walk({ models, offers, params }) {
  const walkable = models.filter(walks);
  // Unless one is chosen: one that encodes, as its latents have the most to show.
  const model = walkable.find(({ name }) => name === params.model) ?? walkable.find((each) => can(each, "encode") && !each.conditional) ?? walkable[0];
  return html`<${Space} key=${model.name} ...${{ model, walkable, models, offers, params }} />`;
}

/** The latent space of a model. */
function Space({ model, walkable, models, offers, params }) {
  const label = model.conditional ? (model.classes.includes(params.label) ? params.label : model.classes[0]) : undefined;
  const inTurn = useTurns();
  const shared = { model, params, label, inTurn };
  const anchors = [useAnchor("a", 0, shared), useAnchor("b", 1, shared), useAnchor("c", 2, shared)];
  const latents = anchors.map(({ answer }) => answer?.latent);
  const spanned = latents.every((latent) => latent?.length === model.latent_dim);
  const plane = useMemo(() => (spanned ? planeThrough(latents) : null), latents);

  const [preview, setPreview] = useState(null);
  const chosen = [params.x, params.y].map((text) => bounded(number(text, 0)));
  const point = preview ?? chosen;
  const map = useAnswer(
    inTurn((signal) => decoded(model, label, mapOf(plane), signal)),
    plane && [model.name, label, latents],
    true,
  );
  const near = useAnswer(
    inTurn(async (signal) => ({ point, pngs: await decoded(model, label, around(plane, ...point), signal) })),
    plane && [model.name, label, latents, point],
    true,
  );
  const pngs = near.answer?.pngs ?? [];
  const here = pngs[Math.floor(pngs.length / 2)];
  const [x, y] = (near.answer?.point ?? point).map((value) => (Math.round(100 * value) / 100 + 0).toFixed(2)); // not -0.00
  const where = `x ${x}, y ${y}`;

  return html`<div class="walk">
    <div class="controls">
      <${Select} label="Model" value=${model.name} hint=${kind(model)} options=${walkable.map(({ name }) => [name, name])}
        onChange=${(name) => update({ model: name, label: undefined })} />
      ${model.conditional && html`<${Select} label="Class" hint="of all images: the model is told" value=${label}
        options=${model.classes.map((name) => [name, name])} onChange=${(name) => update({ label: name })} />`}
    </div>
    <div class="ground">
      <div class="mapped" aria-busy=${map.pending}>
        <${Plane} label=${`Plane of ${model.name}`} tiles=${map.answer} places=${plane?.places} point=${point} waiting=${!plane && "Three anchors span the plane."}
          onPreview=${(to) => plane && setPreview(to)}
          onChoose=${(to) => plane && (setPreview(null), update({ x: to[0] || undefined, y: to[1] || undefined }))} />
        <p class="hint">A latent of ${model.name} has ${model.latent_dim} numbers, so this is one plane of many, not a map of all that the model
          can make. Distances on it are distances between latents.${plane?.flat && " The anchors lie on a line: choose others to span a plane."}</p>
      </div>
      <div class="beside">
        <section class="here" aria-label="At the point">
          <div>
            <${Figure} caption=${where}><${Picture} png=${here} alt=${here ? `Image at ${where}` : "no image yet"} size="large" /><//>
            <${Reading} ...${{ model, models, offers, png: here, moving: preview !== null, where }} />
          </div>
          <${Figure} caption="around it, half a tile apart">
            <div class="around">
              ${Array.from({ length: AROUND * AROUND }, (_, i) => html`<${Picture} key=${i} png=${pngs[i]} alt="" size="small" />`)}
            </div>
          <//>
        </section>
        <${Hint}>Move over the plane to look; click it, or use the arrow keys, to stay.<//>
        <${ProblemNotice} problem=${map.problem ?? near.problem} retry=${map.problem ? map.retry : near.retry} />
        <div class="anchors">
          ${anchors.map((anchor) => html`<${Anchor} key=${anchor.id} ...${{ ...anchor, model, offers }} />`)}
        </div>
      </div>
    </div>
    <${Paths} ...${{ model, label, params, latents: Object.fromEntries(anchors.map(({ id }, i) => [id, latents[i]])) }} />
  </div>`;
}

/** What a classifier reads at the point; it is spoken once the point rests. */
function Reading({ model, models, offers, png, moving, where }) {
  const reader = offers("classify") && models.find((each) => can(each, "classify") && sameForm(each, model));
  const { answer, problem, retry } = useAnswer(
    (signal) => classify(pngBlob(png), { model: reader.name, normalize: false }, signal),
    reader && png ? [png] : null,
    true,
  );
  const result = answer?.results[0];
  if (!reader) return html`<${Spoken}>${where}<//>`;
  return html`<div>
    <p class="kind">${reader.name} reads</p>
    <p class="read">${!result ? "–" : html`<strong>${result.label}</strong> <span class="unit">${asPercent(result.probabilities[result.label])}</span>`}</p>
    <${ProblemNotice} problem=${problem} retry=${retry} />
    ${!moving && result && html`<${Spoken}>${`${where}: ${reader.name} reads ${result.label}`}<//>`}
  </div>`;
}
