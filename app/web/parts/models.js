// Questions about models, as `/models` lists them.

export const can = (model, ...capabilities) => capabilities.every((each) => model.capabilities.includes(each));
export const encodes = (model) => (can(model, "encode") || can(model, "embed")) && can(model, "decode") && sizesAgree(model);
export const uploadForm = (model) => model.input_image ?? model.image;
export const sameForm = (a, b) => JSON.stringify(uploadForm(a)) === JSON.stringify(uploadForm(b));
const sizesAgree = (model) => String(uploadForm(model).shape) === String(model.image.shape);

/** Whether images of this prior can be requested by label. */
export const hasLabels = (model, prior = model.priors[0]) => model.conditional || prior === "fitted";

/** The class names of all models, in order, each once. */
export const classNames = (models) => [...new Set(models.flatMap((model) => model.classes))];

/** What a person calls a model's kind. */
export function kind(model) {
  const words = model.family === model.name ? [] : [model.family];
  if (model.conditional) words.push("conditional");
  if (model.sequential) words.push("slow");
  const [, height, width] = model.image.shape;
  return [...words, `${height}×${width}`].join(" · ");
}
