/** Borders of masks on a slice, along the edges of pixels. */

export type Side = 'top' | 'bottom' | 'left' | 'right'
const SIDES: Side[] = ['top', 'bottom', 'left', 'right']

/** A straight piece of a border: the first pixel that it lies in, at which side, and the number of pixels along it. */
export interface Run {
  side: Side
  x: number
  y: number
  length: number
}

/** The borders of each colour on a slice, inside of what has that colour; pixels that are 0 are transparent. */
export function bordersOf(pixels: Uint32Array, width: number, height: number): Map<number, Run[]> {
  const found = new Map<number, Run[]>()
  for (const side of SIDES) {
    const isRow = side === 'top' || side === 'bottom'
    const isFirst = side === 'top' || side === 'left'
    const [lines, length] = isRow ? [height, width] : [width, height]
    const [along, across] = isRow ? [1, width] : [width, 1]
    const beside = isFirst ? -across : across
    for (let line = 0; line < lines; line++) {
      const isOutmost = line === (isFirst ? 0 : lines - 1)
      let run: Run | null = null
      let colour = 0
      for (let n = 0, at = line * across; n < length; n++, at += along) {
        const pixel = pixels[at]!
        if (!pixel || (!isOutmost && pixels[at + beside] === pixel)) {
          run = null
          continue
        }
        if (run && colour === pixel) {
          run.length++
          continue
        }
        colour = pixel
        run = isRow ? { side, x: n, y: line, length: 1 } : { side, x: line, y: n, length: 1 }
        if (!found.get(pixel)?.push(run)) found.set(pixel, [run])
      }
    }
  }
  return found
}
