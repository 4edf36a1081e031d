/** Slices of the image and of the masks as pixels. Left on the screen is right in the patient, as radiologists see it. */
import { NORMAL, type Plane } from './grid'
import type { Voxels } from './nifti'
import type { Voxel } from './types'

/** How a plane is seen: the axes of the viewer's image along its columns and rows, and whether columns run backwards. */
export const SEEN = {
  axial: { u: 0, v: 1, isMirrored: true },
  coronal: { u: 0, v: 2, isMirrored: true },
  sagittal: { u: 1, v: 2, isMirrored: false },
} as const

const OPAQUE = 0xff000000
const GREY = 0x010101

/** The way through an array of voxels along the pixels of a slice, whose rows run downwards. */
interface Way {
  width: number
  height: number
  first: number
  column: number
  row: number
}

export function wayThrough(plane: Plane, index: number, size: Voxel): Way {
  const { u, v, isMirrored } = SEEN[plane]
  const strides = [1, size[0], size[0] * size[1]] as const
  const first = index * strides[NORMAL[plane]] + (size[v] - 1) * strides[v]
  return {
    width: size[u],
    height: size[v],
    first: isMirrored ? first + (size[u] - 1) * strides[u] : first,
    column: isMirrored ? -strides[u] : strides[u],
    row: -strides[v],
  }
}

/** Paints a slice of an image in grey; intensities of the window run from black to white. */
export function paintImage(pixels: Uint32Array, way: Way, voxels: Voxels, [low, high]: [number, number]): void {
  const scale = 255 / Math.max(high - low, 1e-6)
  let n = 0
  for (let y = 0; y < way.height; y++) {
    let at = way.first + y * way.row
    for (let x = 0; x < way.width; x++, at += way.column) {
      const grey = (voxels[at]! - low) * scale
      // What is no number becomes black.
      const level = grey > 0 ? (grey < 255 ? Math.floor(grey) : 255) : 0
      pixels[n++] = OPAQUE | (level * GREY)
    }
  }
}

/** Paints a slice of masks in the colours of their values. */
export function paintLabels(pixels: Uint32Array, way: Way, bitmap: Uint8Array, colours: Uint32Array): void {
  let n = 0
  for (let y = 0; y < way.height; y++) {
    let at = way.first + y * way.row
    for (let x = 0; x < way.width; x++, at += way.column) pixels[n++] = colours[bitmap[at]!]!
  }
}

/** A table of pixels for `paintLabels`; values without a colour are transparent. */
export function pixelsOf(colours: Map<number, [number, number, number]>): Uint32Array {
  const table = new Uint32Array(256)
  for (const [value, [r, g, b]] of colours) table[value] = OPAQUE | (b << 16) | (g << 8) | r
  return table
}

/** Colours that become brighter from 1 to 255, as in matplotlib's inferno. */
export const INFERNO = pixelsOf(new Map(Array.from({ length: 255 }, (_, n) => [n + 1, inferno((n + 1) / 255)])))

function inferno(share: number): [number, number, number] {
  const stops = [
    [0, 0, 4],
    [87, 16, 110],
    [188, 55, 84],
    [249, 142, 9],
    [252, 255, 164],
  ] as const
  const at = share * (stops.length - 1)
  const n = Math.min(Math.floor(at), stops.length - 2)
  return [0, 1, 2].map((c) => stops[n]![c as 0] + (at - n) * (stops[n + 1]![c as 0] - stops[n]![c as 0])) as [number, number, number]
}
