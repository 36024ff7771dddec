// Numbers as bars.
import { html } from "./html.js";

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
export const asPercent = (share) => percent.format(share);

/** A share in [0, 1], named. best: emphasized. */
export function Bar({ name, share, text = asPercent(share), best = false }) {
  return html`<li class=${best ? "bar best" : "bar"}>
    <span class="bar-name">${name}</span>
    <span class="bar-track" aria-hidden="true"><span style=${{ width: `${100 * share}%` }}></span></span>
    <span class="bar-value">${text}</span>
  </li>`;
}

/** The probabilities of classes, in the order of the classes. With many classes, the most probable ones. Without any: empty bars. */
export function Probabilities({ classes = [], probabilities, most = 12 }) {
  if (!probabilities)
    return html`<ul class="bars">${classes.slice(0, most).map((name) => html`<${Bar} key=${name} name=${name} share=${0} text="–" />`)}</ul>`;
  let entries = Object.entries(probabilities);
  const best = Math.max(...entries.map(([, share]) => share));
  if (entries.length > most) entries = entries.sort((a, b) => b[1] - a[1]).slice(0, most);
  return html`<ul class="bars">
    ${entries.map(([name, share]) => html`<${Bar} key=${name} ...${{ name, share, best: share === best }} />`)}
  </ul>`;
}
