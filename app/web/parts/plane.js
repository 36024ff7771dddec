// A plane through three points of latent space, as a map of decoded images.
import { useRef } from "preact/hooks";
import { html } from "./html.js";
import { dataUrl } from "./pixels.js";

export const TILES = 9; // of a side of the map
export const AROUND = 5; // of a side of the neighbourhood
const SPACING = 1 / TILES; // of the neighbourhood: half a tile
const STEP = 0.05;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const REACH = 1.5; // side of the map, in distances of the farthest anchor from its middle

const minus = (a, b) => a.map((value, i) => value - b[i]);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const times = (factor, a) => a.map((value) => factor * value);
export const length = (a) => Math.sqrt(dot(a, a));

/**
 * The plane through three latents, with x from the first to the second, and y towards the third. Distances on it are
 * distances in latent space; the map is [-1, 1] in x and y. `places` are those of the latents, `at(x, y)` is the latent
 * there. flat: the latents lie on a line, and no plane is spanned.
 */
export function planeThrough([a, b, c]) {
  const middle = a.map((value, i) => (value + b[i] + c[i]) / 3);
  const unit = (vector) => (length(vector) > 1e-6 ? times(1 / length(vector), vector) : times(0, vector));
  const e1 = unit(minus(b, a));
  const ac = minus(c, a);
  const e2 = unit(minus(ac, times(dot(ac, e1), e1)));
  const radius = REACH * Math.max(...[a, b, c].map((each) => length(minus(each, middle)))) || 1;
  return {
    places: [a, b, c].map((each) => [e1, e2].map((axis) => dot(minus(each, middle), axis) / radius)),
    at: (x, y) => middle.map((value, i) => value + radius * (x * e1[i] + y * e2[i])),
    flat: !length(e1) || !length(e2),
  };
}

/** The latents of a square of side x side images around a place, row by row from above. */
export const square = (plane, side, x, y, spacing) =>
  Array.from({ length: side * side }, (_, i) => {
    const [row, column] = [Math.floor(i / side), i % side].map((each) => each - (side - 1) / 2);
    return plane.at(x + column * spacing, y - row * spacing);
  });
export const mapOf = (plane) => square(plane, TILES, 0, 0, 2 / TILES);
export const around = (plane, x, y) => square(plane, AROUND, x, y, SPACING);

/** A coordinate that is on the map, with three decimals. */
export const bounded = (value) => Math.round(Math.min(Math.max(value, -1), 1) * 1000) / 1000;

/**
 * tiles: PNGs of the map, none yet while it is undefined. point: `[x, y]`. waiting: what is missing. onPreview(point): the pointer is there, null when it has left.
 * onChoose(point): it was clicked, or moved with the keyboard.
 */
export function Plane({ tiles, places, point, waiting, onPreview, onChoose, label }) {
  const element = useRef(null);
  const dragged = useRef(false);
  const place = (event) => {
    const box = element.current.getBoundingClientRect();
    return [2 * ((event.clientX - box.left) / box.width) - 1, 1 - 2 * ((event.clientY - box.top) / box.height)].map(bounded);
  };
  const start = (event) => {
    if (event.button !== 0) return;
    dragged.current = true;
    element.current.setPointerCapture(event.pointerId);
    onPreview(place(event));
  };
  const end = (event) => {
    if (!dragged.current) return;
    dragged.current = false;
    onChoose(place(event));
  };
  const press = (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onChoose(point.map((value, i) => bounded(value + (arrow[i] * STEP) / (event.shiftKey ? 5 : 1))));
  };
  const [x, y] = [point[0], -point[1]]; // y of SVG goes down
  const reach = (AROUND * SPACING) / 2;
  return html`<div class="plane" ref=${element} tabindex="0" role="application" aria-label=${label} aria-describedby="plane-help"
      onPointerMove=${(event) => onPreview(place(event))} onPointerDown=${start} onPointerUp=${end} onPointerCancel=${end}
      onPointerLeave=${() => dragged.current || onPreview(null)} onKeyDown=${press}>
    <div class="tiles" aria-hidden="true">
      ${Array.from({ length: TILES * TILES }, (_, i) => tiles && html`<img key=${i} src=${dataUrl(tiles[i])} alt="" draggable=${false} />`)}
    </div>
    ${places && html`<svg viewBox="-1 -1 2 2" aria-hidden="true">
      <polygon points=${places.map(([px, py]) => `${px},${-py}`).join(" ")} />
      <rect class="outline" x=${x - reach} y=${y - reach} width=${2 * reach} height=${2 * reach} />
      <rect class="here" x=${x - reach} y=${y - reach} width=${2 * reach} height=${2 * reach} />
      ${places.map(([px, py], i) => html`<g key=${i}><circle cx=${px} cy=${-py} r="0.055" /><text x=${px} y=${-py + 0.028}>${"ABC"[i]}</text></g>`)}
      <circle class="here" cx=${x} cy=${y} r="0.02" />
    </svg>`}
    ${waiting && html`<p class="invitation">${waiting}</p>`}
    <p id="plane-help" class="spoken">Arrow keys move the point, shift makes smaller steps.</p>
  </div>`;
}
