/** Masks and maps as the server sends them: the bits or bytes of their bounding box, compressed. */
import { unzlibSync, zlibSync } from 'fflate'
import type { Grid } from './grid'
import type { Mask, Uncertainty, Voxel } from './types'

/** Calls `visit` with each voxel (i, j, k) of a mask. */
export function forEachVoxel(mask: Mask, visit: (i: number, j: number, k: number) => void): void {
  const [ni, nj, nk] = mask.extent
  if (!ni) return
  const bits = unzlibSync(fromBase64(mask.bits))
  const [ci, cj, ck] = mask.corner
  let n = 0
  for (let i = 0; i < ni; i++)
    for (let j = 0; j < nj; j++)
      for (let k = 0; k < nk; k++, n++) if (bits[n >> 3]! & (128 >> (n & 7))) visit(ci + i, cj + j, ck + k)
}

/** A voxel of masks on the slice along an axis that holds most of them, near their middle there; null without voxels. */
export function placeOfMost(masks: Mask[], axis: number): Voxel | null {
  const slices = new Map<number, Voxel[]>()
  for (const mask of masks)
    forEachVoxel(mask, (...voxel) => {
      const n = voxel[axis as 0]
      if (!slices.get(n)?.push(voxel)) slices.set(n, [voxel])
    })
  const most = [...slices.values()].reduce<Voxel[]>((best, each) => (each.length > best.length ? each : best), [])
  const middle = [0, 1, 2].map((a) => most.reduce((sum, voxel) => sum + voxel[a as 0], 0) / most.length)
  const distance = (voxel: Voxel) => Math.hypot(...voxel.map((n, a) => n - middle[a]!))
  return most.reduce<Voxel | null>((best, each) => (best && distance(best) <= distance(each) ? best : each), null)
}

/** Packs voxels (i, j, k) of a volume. */
export function packed(voxels: Iterable<Voxel>, shape: Voxel): Mask {
  const all = [...voxels]
  if (!all.length) return { shape, corner: [0, 0, 0], extent: [0, 0, 0], bits: toBase64(zlibSync(new Uint8Array())) }
  const corner = [0, 1, 2].map((a) => all.reduce((least, v) => Math.min(least, v[a as 0]), Infinity)) as Voxel
  const last = [0, 1, 2].map((a) => all.reduce((most, v) => Math.max(most, v[a as 0]), -Infinity))
  const extent = [0, 1, 2].map((a) => last[a]! - corner[a as 0] + 1) as Voxel
  const bits = new Uint8Array(Math.ceil((extent[0] * extent[1] * extent[2]) / 8))
  for (const [i, j, k] of all) {
    const n = ((i - corner[0]) * extent[1] + (j - corner[1])) * extent[2] + (k - corner[2])
    bits[n >> 3]! |= 128 >> (n & 7)
  }
  return { shape, corner, extent, bits: toBase64(zlibSync(bits)) }
}

/** Values of an uncertainty map at each voxel of the viewer. */
export function valuesOf({ corner, extent, values }: Pick<Uncertainty, 'corner' | 'extent' | 'values'>, grid: Grid): Uint8Array {
  const all = new Uint8Array(grid.size[0] * grid.size[1] * grid.size[2])
  const part = unzlibSync(fromBase64(values))
  const [si, sj, sk] = grid.steps
  const start = grid.origin + corner[0] * si + corner[1] * sj + corner[2] * sk
  let n = 0
  for (let i = 0; i < extent[0]; i++)
    for (let j = 0; j < extent[1]; j++)
      for (let k = 0; k < extent[2]; k++) all[start + i * si + j * sj + k * sk] = part[n++]!
  return all
}

function fromBase64(text: string): Uint8Array {
  const characters = atob(text)
  const bytes = new Uint8Array(characters.length)
  for (let n = 0; n < bytes.length; n++) bytes[n] = characters.charCodeAt(n)
  return bytes
}

function toBase64(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return btoa(text)
}
