// A number over the epochs of a training.
import { html } from "./html.js";

const WIDTH = 100;
const HEIGHT = 40;
const MARGIN = 3;
const MUCH = 10; // the largest value over the smallest, from which the scale is logarithmic unless they are shares

const short = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });
const titled = (name) => name.replace("frechet", "Fréchet").replaceAll("_", " ");

/** rows: of all epochs. name: of the number in a row. epoch: where the cursor is. exported: is marked. */
export function Curve({ rows, name, epoch, exported }) {
  const known = rows.filter((row) => row[name] !== undefined);
  const values = known.map((row) => row[name]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const logarithmic = least > 0 && most > MUCH * least && most > 1;
  const scaled = logarithmic ? Math.log : (value) => value;
  const x = (at) => (rows.length > 1 ? ((at - 1) / (rows.length - 1)) * WIDTH : WIDTH / 2);
  const y = (value) => {
    const share = most > least ? (scaled(value) - scaled(least)) / (scaled(most) - scaled(least)) : 0.5;
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN);
  };
  const value = rows[epoch - 1][name];
  const text = value === undefined ? "not measured" : short(value);
  const range = `${short(least)} to ${short(most)}${logarithmic ? ", logarithmic" : ""}`;
  return html`<div class="curve">
    <p><span class="curve-name">${titled(name)}</span> <strong>${value === undefined ? "–" : text}</strong></p>
    <svg class="curve-plot" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img"
      aria-label=${`${titled(name)}: ${text} at epoch ${epoch}; ${range}`}>
      <line class="exported" x1=${x(exported)} x2=${x(exported)} y1="0" y2=${HEIGHT} />
      <polyline points=${known.map((row) => `${x(row.epoch)},${y(row[name])}`).join(" ")} />
      <line class="cursor" x1=${x(epoch)} x2=${x(epoch)} y1="0" y2=${HEIGHT} />
      ${value !== undefined && html`<line class="point" x1=${x(epoch)} x2=${x(epoch) + 0.01} y1=${y(value)} y2=${y(value)} />`}
    </svg>
    <p class="hint">${range}</p>
  </div>`;
}
