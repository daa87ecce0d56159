// The picture at the size a network sees, resampled in the browser as the service does it.

const SHARPNESS = -0.5; // of Keys' bicubic kernel, as in Pillow
const LARGEST = 1024; // sides beyond it are first reduced by the browser

function bicubic(x) {
  const t = Math.abs(x);
  if (t < 1) return ((SHARPNESS + 2) * t - (SHARPNESS + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * SHARPNESS : 0;
}

/** For each of ``to`` pixels the first of ``from`` it is made of, and the weights: antialiased. */
function weights(from, to) {
  const scale = Math.max(from / to, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = ((i + 0.5) * from) / to;
    const first = Math.max(0, Math.floor(centre - 2 * scale + 0.5));
    const last = Math.min(from, Math.floor(centre + 2 * scale + 0.5));
    const parts = Array.from({ length: last - first }, (_, j) => bicubic((first + j - centre + 0.5) / scale));
    const sum = parts.reduce((a, b) => a + b, 0);
    return { first, parts: parts.map((part) => part / sum) };
  });
}

/** One direction: rows of ``from`` RGBA pixels to rows of ``to``, the result transposed. */
function pass(pixels, rows, from, to) {
  const result = new Uint8ClampedArray(rows * to * 4);
  weights(from, to).forEach(({ first, parts }, i) => {
    for (let row = 0; row < rows; row += 1) {
      for (let channel = 0; channel < 4; channel += 1) {
        let sum = 0;
        for (let j = 0; j < parts.length; j += 1) sum += parts[j] * pixels[(row * from + first + j) * 4 + channel];
        result[(i * rows + row) * 4 + channel] = sum;
      }
    }
  });
  return result;
}

/** The central square of a picture over white, as ImageData of ``side`` × ``side``. */
export async function centralSquare(blob, side) {
  const bitmap = await createImageBitmap(blob); // turned as its EXIF says
  const crop = Math.min(bitmap.width, bitmap.height);
  const size = Math.min(crop, LARGEST);
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - crop) / 2, (bitmap.height - crop) / 2, crop, crop, 0, 0, size, size);
  bitmap.close();
  const { data } = context.getImageData(0, 0, size, size);
  return new ImageData(pass(pass(data, size, size, side), side, size, side), side, side);
}
