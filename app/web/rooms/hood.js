// Under the hood: the service as it works, and the requests that this page has sent.
import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import { metrics, onSent, sent } from "../client.js";
import { html } from "../parts/html.js";
import { Hint, ProblemNotice, Spoken } from "../parts/notice.js";
import { buckets, parseMetrics, quantile, total } from "../parts/prometheus.js";
import { Spark } from "../parts/spark.js";
import { asCurl, asPython } from "../parts/snippets.js";
import { update } from "../state.js";

const EVERY_MS = 2000;
const KEPT = 60; // measurements

export const room = {
  id: "hood",
  order: 9,
  title: "Under the hood",
  about: "The service as it works, and the requests that this page has sent, to copy.",
  operations: ["metrics"],
  shown: () => true,
  Room: Hood,
};

function Hood({ params }) {
  const { history, problem } = useMetrics();
  return html`<div class="hood">
    <${ProblemNotice} problem=${problem} />
    <div class="gauges">
      ${GAUGES.map((gauge) => html`<${Gauge} key=${gauge.name} ...${gauge} values=${history.map((each) => each[gauge.key])} />`)}
    </div>
    <h2>Requests of this page</h2>
    <${Requests} params=${params} />
  </div>`;
}

const GAUGES = [
  { key: "requests", name: "requests", unit: "a second", digits: 1 },
  { key: "images", name: "images", unit: "a second", digits: 1 },
  { key: "rows", name: "rows a batch", unit: "mean", digits: 1 },
  { key: "queued", name: "rows waiting", unit: "now", digits: 0 },
  { key: "median", name: "latency, median", unit: "ms", digits: 1 },
  { key: "high", name: "latency, 95th percentile", unit: "ms", digits: 1 },
];

// What probes and this room itself ask is not what people ask.
const counted = ({ route }) => !["/metrics", "/livez", "/readyz", "/openapi.json", "/", "/studio/{digest}/{path:path}"].includes(route);

/** The rates between two pages of metrics. */
function rates(before, after) {
  const seconds = (after.time - before.time) / 1000;
  const grown = (name, passes) => total(after.samples, name, passes) - total(before.samples, name, passes);
  const latency = (q) => quantile(q, ...[before, after].map(({ samples }) => buckets(samples, "digits_request_seconds", counted)));
  const batches = grown("digits_batch_rows_count");
  const milliseconds = (value) => (value === null ? null : 1000 * value);
  return {
    requests: grown("digits_request_seconds_count", counted) / seconds,
    images: grown("digits_images_total") / seconds,
    rows: batches ? grown("digits_batch_rows_sum") / batches : null,
    queued: total(after.samples, "digits_queued_rows"),
    median: milliseconds(latency(0.5)),
    high: milliseconds(latency(0.95)),
  };
}

let history = []; // kept when the room is left; the next rate is the mean since then
let last = null;

function useMetrics() {
  const [state, set] = useState({ history });
  useEffect(() => {
    let timer = null;
    const ask = async () => {
      if (!document.hidden) {
        try {
          const page = { time: performance.now(), samples: parseMetrics(await metrics()) };
          if (last) {
            history = [...history, rates(last, page)].slice(-KEPT);
            set({ history });
          }
          last = page;
        } catch (problem) {
          set({ history, problem });
        }
      }
      if (timer !== undefined) timer = setTimeout(ask, EVERY_MS);
    };
    ask();
    return () => {
      clearTimeout(timer);
      timer = undefined;
    };
  }, []);
  return state;
}

function Gauge({ name, unit, digits, values }) {
  const known = values.filter((value) => value !== null);
  const text = (value) => (value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits }));
  return html`<div class="gauge">
    <h2 class="name">${name}</h2>
    <p class="value">${text(known.at(-1))} <span class="unit">${unit}${known.length > 1 && ` · highest ${text(Math.max(...known))}`}</span></p>
    <${Spark} values=${values} length=${KEPT} label=${`${name} in the last two minutes`} />
  </div>`;
}

function Requests({ params }) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  useEffect(() => onSent(redraw), []);
  const [chosen, choose] = useState(null);
  const request = sent.includes(chosen) ? chosen : sent[0];
  if (!request) return html`<${Hint}>This page has sent nothing yet. Visit another room first.<//>`;
  return html`<div class="requests">
    <table>
      <thead><tr><th scope="col">request</th><th scope="col" class="number">status</th><th scope="col" class="number">ms</th><th scope="col" class="number">kB</th></tr></thead>
      <tbody>
        ${sent.slice(0, 14).map((each) => html`<tr key=${each.id} aria-current=${each === request || undefined}>
          <td><button type="button" class="quiet" aria-pressed=${each === request} onClick=${() => choose(each)}>${each.method} ${each.url.pathname}</button></td>
          <td class="number">${each.status}</td><td class="number">${each.milliseconds.toFixed(0)}</td><td class="number">${(each.bytes / 1000).toFixed(1)}</td>
        </tr>`)}
      </tbody>
    </table>
    <${Code} key=${request.id} request=${request} language=${params.as === "python" ? "python" : "curl"} />
  </div>`;
}

function Code({ request, language }) {
  const [said, say] = useState("");
  const text = language === "python" ? asPython(request) : asCurl(request);
  const upload = request.content instanceof Blob ? request.content : null;
  const url = useMemo(() => upload && URL.createObjectURL(upload), [upload]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not allow copying here; select the text.");
    }
  };
  return html`<div class="code">
    <div class="tools">
      <button type="button" aria-pressed=${language === "curl"} onClick=${() => update({ as: undefined })}>curl</button>
      <button type="button" aria-pressed=${language === "python"} onClick=${() => update({ as: "python" })}>Python</button>
      <button type="button" onClick=${copy}>Copy</button>
      ${url && html`<a class="button" href=${url} download=${upload.type === "image/jpeg" ? "drawing.jpg" : "drawing.png"}>Save the picture</a>`}
    </div>
    <pre tabindex="0" role="region" aria-label="The request as code"><code>${text}</code></pre>
    <${Spoken}>${said}<//>
    ${said && html`<p class="hint" aria-hidden="true">${said}</p>`}
  </div>`;
}
