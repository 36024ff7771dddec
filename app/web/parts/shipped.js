// What a checkpoint ships beside its weights: pictures and the history of its training, asked once for each digest.
import { useEffect, useMemo } from "preact/hooks";
import { modelHistory, modelPicture } from "../client.js";
import { useAnswer } from "./answer.js";
import { html } from "./html.js";
import { ProblemNotice } from "./notice.js";

const answers = new Map();

function once(key, ask) {
  if (!answers.has(key)) {
    const answer = ask();
    answers.set(key, answer);
    answer.catch(() => answers.delete(key));
  }
  return answers.get(key);
}

/** A picture as a Blob. name: one of `model.pictures`. */
export const shippedPicture = (model, name) => once(`${model.name} ${model.digest} ${name}`, () => modelPicture(model.name, name));
export const shippedHistory = (model) => once(`${model.name} ${model.digest}`, () => modelHistory(model.name));

/** A picture of the card, as wide as there is room for. */
export function Shipped({ model, name, alt }) {
  const { answer, problem, retry } = useAnswer(() => shippedPicture(model, name), [model.name, model.digest, name]);
  const url = useMemo(() => answer && URL.createObjectURL(answer), [answer]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  if (problem) return html`<${ProblemNotice} ...${{ problem, retry }} />`;
  return url ? html`<img class="shipped" src=${url} alt=${alt} />` : html`<p class="hint" role="status">Loading…</p>`;
}

/** Cut images of a side out of a sheet: `count` and `cut(index)`, a PNG in base64, row by row. */
export async function cutSheet(blob, side) {
  const sheet = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const columns = Math.floor(sheet.width / side);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return {
    count: columns * Math.floor(sheet.height / side),
    cut(index) {
      context.drawImage(sheet, -side * (index % columns), -side * Math.floor(index / columns));
      return canvas.toDataURL("image/png").split(",")[1];
    },
  };
}
