// A drawing: strokes over a picture or over nothing. It is painted at any size, and short enough for an address.
//
// A stroke is `[width, x, y, x, y, ...]`, whole numbers up to 255 = the side of the canvas.
import { canvas, dataUrl, fromAddress, toAddress } from "./pixels.js";

export const UNIT = 255;
const NEAR = 3; // points that are closer are left out

/** Append a point to a stroke, unless it is close to the last one. Returns whether it did. */
export function extend(stroke, x, y) {
  const point = [x, y].map((value) => Math.round(Math.min(Math.max(value, 0), 1) * UNIT));
  const last = stroke.slice(-2);
  if (stroke.length > 1 && Math.hypot(point[0] - last[0], point[1] - last[1]) < NEAR) return false;
  stroke.push(...point);
  return true;
}

/** Strokes as text: for each the number of its points in two bytes, and its numbers. */
export function encodeStrokes(strokes) {
  const bytes = strokes.flatMap((stroke) => {
    const points = (stroke.length - 1) / 2;
    return [points >> 8, points & 255, ...stroke];
  });
  return toAddress(btoa(String.fromCharCode(...bytes)));
}

/** The strokes of a text, none if it is damaged. */
export function decodeStrokes(text) {
  const strokes = [];
  try {
    const bytes = Array.from(atob(fromAddress(text)), (character) => character.charCodeAt(0));
    for (let at = 0; at < bytes.length; ) {
      const length = 1 + 2 * ((bytes[at] << 8) | bytes[at + 1]);
      if (!(length > 1 && at + 2 + length <= bytes.length)) return [];
      strokes.push(bytes.slice(at + 2, at + 2 + length));
      at += 2 + length;
    }
  } catch {
    return [];
  }
  return strokes;
}

const pictures = new Map(); // decoded, by their base64 in an address

/** The picture of a drawing, decoded. Null if there is none or it is damaged. */
export async function decodePicture(text) {
  if (!text) return null;
  if (!pictures.has(text)) {
    const image = new Image();
    image.src = dataUrl(fromAddress(text));
    pictures.clear();
    pictures.set(text, image.decode().then(() => image, () => null));
  }
  return pictures.get(text);
}

/** Paint light ink on a dark ground, as the models have it. */
export function paint(context, strokes, picture) {
  const side = context.canvas.width;
  context.fillStyle = "#000";
  context.fillRect(0, 0, side, side);
  context.imageSmoothingEnabled = false;
  if (picture) context.drawImage(picture, 0, 0, side, side);
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  for (const [width, ...points] of strokes) {
    const scaled = points.map((value) => (value / UNIT) * side);
    context.lineWidth = (width / UNIT) * side;
    context.beginPath();
    context.moveTo(scaled[0], scaled[1]);
    if (scaled.length === 2) context.lineTo(scaled[0] + 0.01, scaled[1]);
    for (let i = 2; i < scaled.length - 2; i += 2) {
      // Through the middles of the pieces, so that the curve has no corners.
      const [x, y] = [scaled[i], scaled[i + 1]];
      context.quadraticCurveTo(x, y, (x + scaled[i + 2]) / 2, (y + scaled[i + 3]) / 2);
    }
    if (scaled.length > 2) context.lineTo(scaled.at(-2), scaled.at(-1));
    context.stroke();
  }
}

const UPLOAD_SIDE = 140;

/** The canvas to upload. */
export function painted(strokes, picture) {
  const context = canvas(UPLOAD_SIDE, UPLOAD_SIDE);
  paint(context, strokes, picture);
  return context;
}
