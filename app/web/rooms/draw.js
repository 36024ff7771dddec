// Draw: what every model that takes images makes of a drawing, stroke by stroke.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { classify, generate, normalize, reconstruct, score } from "../client.js";
import { useAnswer, useSettled } from "../parts/answer.js";
import { Bar, Probabilities, asPercent } from "../parts/bars.js";
import { decodePicture, decodeStrokes, encodeStrokes, painted } from "../parts/drawing.js";
import { Select } from "../parts/field.js";
import { html } from "../parts/html.js";
import { Latents, decodeLatent, encodeLatent } from "../parts/latents.js";
import { can, classNames, encodes, kind, sameForm, uploadForm } from "../parts/models.js";
import { Hint, ProblemNotice, Spoken } from "../parts/notice.js";
import { Pad } from "../parts/pad.js";
import { ErrorMap, Figure, Picture } from "../parts/picture.js";
import { photo, pngBlob, toAddress, toPng } from "../parts/pixels.js";
import { cutSheet, shippedPicture } from "../parts/shipped.js";
import { update } from "../state.js";

const takesImages = (model) => encodes(model) || can(model, "classify") || can(model, "discriminate");

export const room = {
  id: "draw",
  order: 1,
  title: "Draw",
  about: "Draw something. Every model that takes images shows what it makes of it, stroke by stroke.",
  operations: ["normalize"],
  shown: (models) => models.some(takesImages),
  receive: ({ png }) => ({ img: toAddress(png) }),
  Room: Draw,
};

function Draw({ models, offers, params }) {
  const encoders = offers("reconstruct") ? models.filter(encodes) : [];
  const readers = offers("classify") ? models.filter((model) => can(model, "classify")) : [];
  const judges = offers("score") ? models.filter((model) => can(model, "discriminate")) : [];
  const main = [...encoders, ...readers, ...judges][0];

  const drawing = useDrawing(params);
  const input = useAnswer(
    async (signal) => {
      const { upload, strokes } = drawing;
      return { upload, ...(await normalize(upload, { model: main.name, normalize: strokes.length > 0 }, signal)) };
    },
    drawing.upload && [drawing.upload],
    drawing.live,
    true,
  );
  const png = drawing.upload && input.answer?.input.png;
  const image = useMemo(() => png && pngBlob(png), [png]);
  /** What to send to a model: the small picture, or to a model of another form the drawing itself. */
  const picture = (model) =>
    image && (sameForm(model, main) ? { blob: image, normalize: false } : { blob: drawing.upload, normalize: true });

  const [reading, setReading] = useState(null); // the first classifier's
  const label = params.label ?? reading ?? undefined;
  // Until the stroke has ended and the models can have it.
  const live = drawing.live || input.answer?.upload !== drawing.upload;
  const shared = { picture, label, live };

  return html`<div class="draw">
    <section class="drawing" aria-label="Drawing">
      <${Pad} ...${drawing} onLive=${drawing.onLive} onDone=${drawing.onDone}>
        ${!drawing.upload && html`<p class="invitation" aria-hidden="true">Draw here</p>`}
      <//>
      <${Tools} ...${{ drawing, models, main }} />
      <${ProblemNotice} problem=${drawing.problem ?? input.problem} />
      ${(drawing.upload ? (drawing.warnings ?? input.answer?.warnings ?? []) : []).map((each) => html`<p key=${each.code} class="notice warning" role="status">${each.detail}</p>`)}
    </section>
    <section class="results" aria-label="What the models make of it">
      ${!drawing.upload && html`<${Hint}>Nothing is drawn yet. Draw with a mouse, a pen, a finger or the arrow keys, paste a picture or drop
        one here, or load an example.<//>`}
      <div class="seen">
        <div class="as-seen">
          <${Figure} caption="as the models see it">
            <${Picture} png=${png} alt=${png ? "The drawing as the models see it" : "No drawing yet"} size="large" />
          <//>
          <${LabelChoice} ...${{ models: [...encoders, ...judges], params, reading }} />
        </div>
        ${readers.map((model, i) => html`<${Reader} key=${model.name} ...${{ model, ...shared, onLabel: i ? null : setReading }} />`)}
      </div>
      ${encoders.length > 0 && html`<h2>Reconstructions</h2>
        <p class="about">Each model writes the picture as a few numbers, and draws it again from these alone. Blue marks ink that it lost, orange ink
        that it added. Pull a number to see what it stands for.</p>`}
      <div class="cards">
        ${encoders.map((model) => html`<${Reconstruction} key=${model.name} ...${{ model, params, offers, ...shared }} />`)}
      </div>
      ${judges.length > 0 && html`<h2>Discriminators</h2>
        <p class="about">Each one was trained to tell training images from those of its own generator. The share is not calibrated and cannot be
        compared between models; a discriminator that its generator fools answers about a half to everything.</p>`}
      <ul class="bars judges">
        ${judges.map((model) => html`<${Judge} key=${model.name} ...${{ model, ...shared }} />`)}
      </ul>
    </section>
  </div>`;
}

/** The drawing of the address, or a newer one while a stroke is drawn, and the file to upload. */
function useDrawing({ ink, img }) {
  const [started, setStarted] = useState(null); // with the stroke that is being drawn
  const [picture, setPicture] = useState(null);
  const [problem, setProblem] = useState(null);
  const [warnings, setWarnings] = useState(null); // of a picture that was opened
  const text = started ?? ink ?? "";
  const strokes = useMemo(() => decodeStrokes(text), [text]);
  const upload = useMemo(() => {
    if (strokes.length) return toPng(painted(strokes, picture));
    return picture && pngBlob(picture.src.split(",")[1]);
  }, [strokes, picture]);

  useEffect(() => {
    let current = true;
    decodePicture(img).then((decoded) => current && setPicture(decoded));
    return () => (current = false);
  }, [img]);

  const show = (changes) => {
    setStarted(null);
    setProblem(null);
    setWarnings(null);
    update({ pull: undefined, z: undefined, ...changes });
  };
  return {
    strokes,
    picture,
    upload,
    problem,
    live: started !== null,
    onLive: (newer) => setStarted(encodeStrokes(newer)),
    onDone: (newer) => show({ ink: encodeStrokes(newer) }),
    undo: () => show(strokes.length ? { ink: encodeStrokes(strokes.slice(0, -1)) } : { img: undefined }),
    clear: () => show({ ink: undefined, img: undefined, label: undefined }),
    load(png, warned = null) {
      show({ ink: undefined, img: toAddress(png), label: undefined });
      setWarnings(warned);
    },
    warnings,
    setProblem,
  };
}

function Tools({ drawing, models, main }) {
  const chooser = useRef(null);
  const source = models.find((model) => model.pictures.includes("examples") && String(model.image.shape) === String(uploadForm(main).shape));
  const [example, setExample] = useState(0);

  async function open(file) {
    try {
      const answer = await normalize(await photo(file), { model: main.name });
      drawing.load(answer.input.png, answer.warnings);
    } catch (problem) {
      drawing.setProblem(problem);
    }
  }

  async function loadExample() {
    try {
      const sheet = await cutSheet(await shippedPicture(source, "examples"), source.image.shape[1]);
      setExample(example + 1);
      drawing.load(sheet.cut(example % sheet.count));
    } catch (problem) {
      drawing.setProblem(problem);
    }
  }

  useEffect(() => {
    const picked = (event, transfer) => {
      const file = [...(transfer?.files ?? [])].find(({ type }) => type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      open(file);
    };
    const listeners = {
      paste: (event) => picked(event, event.clipboardData),
      drop: (event) => picked(event, event.dataTransfer),
      dragover: (event) => event.preventDefault(), // or there is no drop
    };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    };
  });

  return html`<div class="tools">
    <button type="button" disabled=${!drawing.strokes.length && !drawing.picture} onClick=${drawing.undo}>Undo</button>
    <button type="button" disabled=${!drawing.upload} onClick=${drawing.clear}>Clear</button>
    ${source && html`<button type="button" onClick=${loadExample} title="A test image">Example</button>`}
    <button type="button" title="A PNG or JPEG, also a photo" onClick=${() => chooser.current.click()}>Open…</button>
    <input ref=${chooser} type="file" accept="image/png,image/jpeg" hidden aria-label="Open a picture"
      onChange=${({ target }) => {
        if (target.files[0]) open(target.files[0]);
        target.value = "";
      }} />
  </div>`;
}

/** What the drawing shows, which a conditional model must be told. */
function LabelChoice({ models, params, reading }) {
  const classes = classNames(models.filter((model) => model.conditional));
  if (!classes.length) return null;
  const automatic = reading ? `as read: ${reading}` : "not said";
  const options = [["", automatic], ...classes.map((name) => [name, name])];
  return html`<${Select} label="It shows" value=${params.label ?? ""} options=${options}
    hint="told to conditional models" onChange=${(label) => update({ label })} />`;
}

function Reader({ model, picture, live, onLabel }) {
  const { blob, normalize } = picture(model) ?? {};
  const { answer, problem, retry } = useAnswer(
    (signal) => classify(blob, { model: model.name, normalize }, signal),
    blob && [blob],
    live,
  );
  const result = answer?.results[0];
  useLayoutEffect(() => onLabel?.(result?.label ?? null), [result]);
  return html`<section class="reader" aria-label=${`${model.name} reads`}>
    <h2 class="name">${model.name} <span class="kind">${result ? html`reads <strong>${result.label}</strong>` : "classifier"}</span></h2>
    <${ProblemNotice} problem=${problem} retry=${retry} />
    <${Probabilities} classes=${model.classes} probabilities=${result?.probabilities} />
    ${!live && result && html`<${Spoken}>${`${model.name} reads ${result.label}, ${asPercent(result.probabilities[result.label])}`}<//>`}
  </section>`;
}

function Reconstruction({ model, params, offers, picture, label, live }) {
  const [wanted, setWanted] = useState(!model.sequential); // a sequential model takes seconds: only on demand
  const told = model.conditional && model.classes.includes(label) ? label : undefined;
  const untold = model.conditional && told === undefined;
  const { blob, normalize } = picture(model) ?? {};
  const { answer, problem, pending, retry } = useAnswer(
    (signal) => reconstruct(blob, { model: model.name, label: told, normalize }, signal),
    wanted && blob && !untold ? [blob, told] : null,
    live,
  );
  const pulled = params.pull === model.name && answer ? decodeLatent(params.z, answer.latent.mean.length) : null;
  const decoded = useAnswer(
    (signal) => generate({ model: model.name, latents: [pulled], label: told }, signal),
    pulled && [pulled, told],
    true,
  );
  const pullable = offers("generate") && can(model, "generate") && answer;
  const open = params.pull === model.name;
  const pull = (latent) => update({ pull: model.name, z: encodeLatent(latent) });
  const shown = pulled ? (decoded.answer?.images[0].png ?? answer.reconstruction.png) : answer?.reconstruction.png;

  return html`<article class=${open ? "card wide" : "card"} aria-busy=${pending} aria-label=${model.name}>
    <header><h3>${model.name}</h3><span class="kind">${kind(model)}</span></header>
    ${!wanted && html`<p class="hint">This model takes seconds.</p><button type="button" onClick=${() => setWanted(true)}>Reconstruct</button>`}
    ${wanted && untold && blob && html`<${Hint}>Say what the picture shows to see this model.<//>`}
    <${ProblemNotice} problem=${problem ?? decoded.problem} retry=${problem ? retry : decoded.retry} />
    <div class="pair">
      <${Figure} caption="input"><${Picture} png=${answer?.input.png} alt=${answer ? "input" : "no input yet"} /><//>
      <${Figure} caption=${pulled ? "pulled" : "reconstruction"}>
        <${Picture} png=${shown} alt=${answer ? `reconstruction by ${model.name}` : "no reconstruction yet"} />
      <//>
      <${Figure} caption="difference">
        ${answer
          ? html`<${ErrorMap} first=${answer.input.png} second=${shown} alt=${`difference, mean squared error ${answer.errors.mse.toFixed(4)}`} />`
          : html`<${Picture} alt="no difference yet" />`}
      <//>
    </div>
    ${!pulled && html`<dl class="numbers three">
      <${Number_} name="cross-entropy" value=${answer?.errors.bce.toFixed(1)} unit="nats" />
      <${Number_} name="squared error" value=${answer?.errors.mse.toFixed(4)} unit="a pixel" />
      ${(!answer || answer.errors.kl !== null) && html`<${Number_} name="KL divergence" value=${answer?.errors.kl.toFixed(1)} unit="nats" />`}
    </dl>`}
    ${pullable && html`<button type="button" class="quiet" aria-expanded=${open}
        onClick=${() => update(open ? { pull: undefined, z: undefined } : { pull: model.name, z: encodeLatent(answer.latent.mean) })}>
        ${open ? "Let go of the latent" : `Pull the ${answer.latent.mean.length} numbers of the latent`}</button>`}
    ${open && answer && html`<${Latents} latent=${pulled ?? answer.latent.mean} logVariance=${answer.latent.log_variance} onInput=${pull} />`}
  </article>`;
}

const Number_ = ({ name, value, unit }) =>
  html`<div><dt>${name}</dt><dd>${value ?? "–"} <span class="unit">${unit}</span></dd></div>`;

function Judge({ model, picture, label, live }) {
  const told = model.conditional && model.classes.includes(label) ? label : undefined;
  const untold = model.conditional && told === undefined;
  const current = picture(model);
  const { blob, normalize } = useSettled(current, live) ?? {}; // after each stroke
  const { answer, problem, retry } = useAnswer(
    (signal) => score(blob, { model: model.name, label: told, normalize }, signal),
    blob && !untold ? [blob, told] : null,
  );
  if (problem) return html`<li><${ProblemNotice} problem=${problem} retry=${retry} /></li>`;
  const result = answer?.scores[0];
  const name = html`${model.name}${told && html` <span class="kind">as ${told}</span>`}`;
  const text = result ? `${asPercent(result.probability)} · logit ${result.logit.toFixed(1)}` : untold && blob ? "needs a label" : "–";
  return html`<${Bar} name=${name} share=${result?.probability ?? 0} text=${text} />`;
}
