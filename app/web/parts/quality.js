// A model's measured quality, from its manifest.
import { useEffect, useState } from "preact/hooks";
import { describeModel } from "../client.js";

const details = new Map();

/** The description of a model, `{detail, problem}`, asked once for each digest. */
export function useDetail(model) {
  const [state, set] = useState({});
  useEffect(() => {
    let current = true;
    const key = `${model.name} ${model.digest}`;
    if (!details.has(key)) details.set(key, describeModel(model.name));
    details.get(key).then(
      (detail) => current && set({ detail }),
      (problem) => {
        details.delete(key);
        if (current) set({ problem });
      },
    );
    return () => (current = false);
  }, [model.name, model.digest]);
  return state;
}

const NAMES = ["frechet_distance", "precision", "recall", "label_agreement"];

/**
 * The figures measured under these sampling controls: `{figures, at}`. at: null if they are those of exactly these
 * controls, else a text that names the controls of the closest measurement. Null without a measurement.
 */
export function figuresAt(model, quality, { prior = model.priors[0], temperature = 1, truncation = null }) {
  if (!quality) return null;
  const measured = quality.controls.map((each) => ({ ...each, distance: distance(each, { prior, temperature, truncation }) }));
  // The figures of the card are those of the model's default prior without other controls.
  const figures = Object.fromEntries(NAMES.flatMap((name) => (quality.figures[name] ? [[name, quality.figures[name].value]] : [])));
  const standard = { prior: model.priors[0], temperature: 1, truncation: null, figures };
  measured.unshift({ ...standard, distance: distance(standard, { prior, temperature, truncation }) });
  const [closest] = measured.filter((each) => each.prior === prior).sort((a, b) => a.distance - b.distance);
  if (!closest || !Object.keys(closest.figures).length) return null;
  return { figures: closest.figures, at: closest.distance === 0 ? null : controlsText(model, closest) };
}

const UNTRUNCATED = 4; // standard deviations: hardly a number of a normal distribution is larger

function distance(a, b) {
  const truncations = [a, b].map(({ truncation }) => Math.min(truncation ?? UNTRUNCATED, UNTRUNCATED));
  return (a.prior === b.prior ? 0 : 100) + Math.abs(a.temperature - b.temperature) + Math.abs(truncations[0] - truncations[1]);
}

function controlsText(model, { temperature, truncation }) {
  const texts = [];
  if (model.sampling.includes("temperature")) texts.push(`temperature ${temperature}`);
  if (model.sampling.includes("truncation")) texts.push(truncation === null ? "no truncation" : `truncation ${truncation}`);
  return texts.join(", ");
}
