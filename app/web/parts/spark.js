// A small plot of the last values.
import { html } from "./html.js";

const WIDTH = 100;
const HEIGHT = 30;

/** values: the newest last, null where there is none. length: how many fill the width. */
export function Spark({ values, length, label }) {
  const most = Math.max(...values.filter((value) => value !== null), 0) || 1;
  const points = values
    .map((value, i) => value !== null && `${((i + length - values.length) / (length - 1)) * WIDTH},${HEIGHT - (value / most) * HEIGHT}`)
    .filter(Boolean);
  return html`<svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${label}>
    <line x1="0" x2=${WIDTH} y1=${HEIGHT} y2=${HEIGHT} />
    <polyline points=${points.join(" ")} />
  </svg>`;
}
