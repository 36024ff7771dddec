// Quiz: real or made? Twenty images, half of them test images, half of them made by models.
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { generate } from "../client.js";
import { useAnswer } from "../parts/answer.js";
import { Bar } from "../parts/bars.js";
import { Integer, Select } from "../parts/field.js";
import { html } from "../parts/html.js";
import { can } from "../parts/models.js";
import { ProblemNotice } from "../parts/notice.js";
import { Figure, Picture } from "../parts/picture.js";
import { cutSheet, shippedPicture } from "../parts/shipped.js";
import { link, update } from "../state.js";

const PAIRS = 10;
const EXAMPLES = 100; // images in a sheet
const QUIZZES = 10_000; // that "New quiz" draws from
const REAL = "r";
const MADE = "m";

const plays = (model) => can(model, "generate") && model.pictures.includes("examples");

export const room = {
  id: "quiz",
  order: 6,
  title: "Quiz",
  about: "Real or made? Twenty images, half of them made by models.",
  operations: ["generate", "model_picture"],
  shown: (models) => models.some(plays),
  Room: Quiz,
};

function Quiz({ models, params, rooms }) {
  const players = models.filter(plays);
  const quick = players.filter((model) => !model.sequential);
  const chosen = players.find(({ name }) => name === params.of);
  const pool = chosen ? [chosen] : quick.length ? quick : players;
  const seed = /^\d{1,9}$/.test(params.seed ?? "") ? Number(params.seed) : 1;
  const start = (changes) => update({ answers: undefined, ...changes });
  const another = () => start({ seed: 1 + Math.floor(Math.random() * QUIZZES) });
  return html`<div class="quiz">
    <div class="controls">
      <${Integer} label="Quiz" hint="the same number is the same quiz" value=${seed} max="999999999" onChange=${(value) => start({ seed: value })}>
        <button type="button" onClick=${another}>New quiz</button>
      <//>
      <${Select} label="Made by" value=${chosen?.name ?? ""} onChange=${(of) => start({ of: of || undefined })}
        options=${[["", quick.length ? "all quick models" : "all models"], ...players.map((model) => [model.name, model.sequential ? `${model.name} (slow)` : model.name])]} />
    </div>
    <${Round} key=${`${seed} ${pool.map(({ digest }) => digest)}`} ...${{ pool, seed, params, rooms, another, start }} />
  </div>`;
}

/** A sequence of numbers in [0, 1) from a seed (mulberry32). */
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffled(items, random) {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** The questions: for each image made by a model a real one of its data and size, so that neither tells anything. */
function plan(pool, seed) {
  const random = randomFrom(seed);
  const order = shuffled(pool, random);
  const cells = shuffled(Array.from({ length: EXAMPLES }, (_, i) => i), random);
  const pairs = cells.slice(0, PAIRS).flatMap((cell, i) => {
    const model = order[i % order.length];
    return [{ model, real: true, index: cell }, { model, real: false, index: Math.floor(i / order.length) }];
  });
  return shuffled(pairs, random);
}

/** The questions with their images. */
async function load(questions, seed, signal) {
  const images = new Map();
  await Promise.all(
    [...new Set(questions.map(({ model }) => model))].map(async (model) => {
      const n = questions.filter((each) => each.model === model && !each.real).length;
      const [sheet, made] = await Promise.all([
        shippedPicture(model, "examples").then((blob) => cutSheet(blob, model.image.shape[1])),
        generate({ model: model.name, n, seed }, signal),
      ]);
      images.set(model, { sheet, made: made.images });
    }),
  );
  return questions.map((each) => {
    const { sheet, made } = images.get(each.model);
    return { ...each, png: each.real ? sheet.cut(each.index % sheet.count) : made[each.index].png };
  });
}

const isRight = (question, answer) => question.real === (answer === REAL);

function Round({ pool, seed, params, rooms, another, start }) {
  const planned = useMemo(() => plan(pool, seed), []);
  const { answer: questions, problem, retry } = useAnswer((signal) => load(planned, seed, signal), [seed]);
  const answers = /^[rm]{0,20}$/.test(params.answers ?? "") ? (params.answers ?? "") : "";
  const [told, setTold] = useState(false); // whether the last answer is being judged
  const asked = useRef(null);
  const next = useRef(null);
  const at = told ? answers.length - 1 : answers.length;
  const question = questions?.[at];
  const done = questions && at === questions.length;
  const right = questions ? [...answers].filter((each, i) => isRight(questions[i], each)).length : 0;

  const say = (answer) => {
    if (told || !question) return;
    setTold(true);
    update({ answers: answers + answer });
  };
  const before = useRef(told);
  useLayoutEffect(() => {
    // The button that had the focus is gone.
    if (told !== before.current) (told ? next : asked).current.focus({ preventScroll: true });
    before.current = told;
  }, [told]);
  useLayoutEffect(() => {
    const press = (event) => {
      const answer = { ArrowLeft: REAL, ArrowRight: MADE }[event.key];
      if (!answer || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, summary, nav")) return;
      event.preventDefault();
      say(answer);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });

  if (problem) return html`<${ProblemNotice} ...${{ problem, retry }} />`;
  return html`
    <section class="round" ref=${asked} tabindex="-1" aria-label=${done ? `Your score: ${right} of ${planned.length}` : `Question ${at + 1} of ${planned.length}`}>
      ${done
        ? html`<${Score} ...${{ questions, answers, right, rooms, seed }} />
            <div class="tools">
              <button type="button" onClick=${another}>New quiz</button>
              <button type="button" onClick=${() => start({})}>Play this one again</button>
              <a class="button" href=${link("quiz", { seed, of: params.of })} target="_blank">Link to this quiz, without answers</a>
            </div>`
        : html`<${Picture} png=${question?.png} size="huge" alt=${question ? "An image, real or made" : "The image is not there yet"} />
            <div class="asked">
              <h2>${at + 1} of ${planned.length}</h2>
              ${!questions && html`<p class="hint" role="status">Getting the images…${pool.some(({ sequential }) => sequential) ? " This model takes seconds." : ""}</p>`}
              ${told
                ? html`<${Verdict} ...${{ question, right: isRight(question, answers[at]), rooms, seed }} />
                    <button type="submit" ref=${next} aria-describedby="verdict" onClick=${() => setTold(false)}>${at + 1 < planned.length ? "Next" : "See the score"}</button>`
                : html`<p class="hint">Is it real, or made by a model? The arrow keys answer, too.</p>
                    <div class="answers">
                      <button type="button" disabled=${!question} onClick=${() => say(REAL)}><span aria-hidden="true">←</span> Real</button>
                      <button type="button" disabled=${!question} onClick=${() => say(MADE)}>Made <span aria-hidden="true">→</span></button>
                    </div>`}
              ${answers && html`<p class="hint">${right} of ${answers.length} right so far</p>`}
            </div>`}
      <${Marks} ...${{ planned, answers, questions }} />
    </section>`;
}

/** What became of each question. */
function Marks({ planned, answers, questions }) {
  return html`<ol class="marks" aria-hidden="true">
    ${planned.map((_, i) => {
      const answered = questions && answers[i];
      const good = answered && isRight(questions[i], answers[i]);
      return html`<li key=${i} class=${answered ? (good ? "good" : "bad") : ""}>${answered ? (good ? "✓" : "✗") : i + 1}</li>`;
    })}
  </ol>`;
}

const origin = ({ real, model }) => (real ? "It is real, a test image" : `It was made by ${model.name}${model.family === model.name ? "" : ` of the family ${model.family}`}`);

function Verdict({ question, right, rooms, seed }) {
  const { model, index } = question;
  const here = !question.real && rooms.some(({ id }) => id === "sample");
  return html`<div class=${right ? "verdict good" : "verdict bad"}>
    <p id="verdict"><strong>${right ? "✓ Right." : "✗ Wrong."}</strong> ${origin(question)}.</p>
    ${here && html`<p class="hint"><a href=${link("sample", { seed, label: "any", open: `${model.name}.${index}` })}>Open it in Sample</a></p>`}
  </div>`;
}

function Score({ questions, answers, right, rooms, seed }) {
  const judged = questions.map((question, i) => ({ ...question, right: isRight(question, answers[i]) }));
  const groups = Map.groupBy(judged, ({ real, model }) => (real ? "real images" : model.family));
  const ordered = [...groups].sort(([a], [b]) => (b === "real images") - (a === "real images") || a.localeCompare(b));
  const fooled = judged.filter((each) => !each.right);
  return html`<div class="score">
    <h2>${right} of ${questions.length} right</h2>
    <p class="hint">Guessing gets about ${questions.length / 2}.</p>
    <h3>Told apart, by family</h3>
    <ul class="bars scores">
      ${ordered.map(([name, group]) => {
        const count = group.filter((each) => each.right).length;
        return html`<${Bar} key=${name} name=${name} share=${count / group.length} text=${`${count} of ${group.length}`} />`;
      })}
    </ul>
    <h3>${fooled.length ? "What fooled you" : "Nothing fooled you"}</h3>
    <div class="fooled">
      ${fooled.map((each) => html`<${Figure} key=${`${each.real} ${each.model.name} ${each.index}`} caption=${each.real ? "real" : each.model.name}>
        <${Picture} png=${each.png} alt=${each.real ? "A real image that you took for a made one" : `An image of ${each.model.name} that you took for a real one`} />
      <//>`)}
    </div>
  </div>`;
}
