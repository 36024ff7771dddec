// Between PNGs and pixels.

export const dataUrl = (base64) => `data:image/png;base64,${base64}`;

/** A picture in base64 as a file to upload. */
export function pngBlob(base64, type = "image/png") {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type });
}

// Base64 in an address (RFC 4648, section 5).
export const toAddress = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
export const fromAddress = (text) => text.replaceAll("-", "+").replaceAll("_", "/");

/** The grey values of a file: `{width, height, values}`, one byte a pixel. */
export async function greyValues(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const context = canvas(bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const { width, height, data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return { width, height, values: data.filter((_, i) => i % 4 === 0) };
}

/** The context of a new canvas of this size. */
export function canvas(width, height) {
  const element = document.createElement("canvas");
  Object.assign(element, { width, height });
  return element.getContext("2d", { willReadFrequently: true });
}

/** The canvas of a context as a file. At once: `toBlob` waits until the browser is idle. */
export const toPng = (context, type = "image/png") => pngBlob(context.canvas.toDataURL(type, 0.9).split(",")[1], type);

const PHOTO_SIDE = 1024;

/** A file that a person has chosen, no larger than needed. Throws an Error that says why it cannot be used. */
export async function photo(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("This file is not a picture that the browser can read. Use a PNG or JPEG.");
  }
  const factor = Math.min(1, PHOTO_SIDE / Math.max(bitmap.width, bitmap.height));
  const context = canvas(Math.max(1, Math.round(bitmap.width * factor)), Math.max(1, Math.round(bitmap.height * factor)));
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, context.canvas.width, context.canvas.height);
  return toPng(context, file.type === "image/jpeg" ? "image/jpeg" : "image/png");
}
