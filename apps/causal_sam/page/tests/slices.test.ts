import { expect, test } from 'vitest'
import { voxelsOf } from '../src/nifti'
import { reduced, reductionOf } from '../src/reduced'
import { paintImage, paintLabels, pixelsOf, wayThrough } from '../src/slices'
import type { Voxel } from '../src/types'

const SIZE: Voxel = [3, 4, 2]
const PLANES = ['axial', 'coronal', 'sagittal'] as const
const at = (x: number, y: number, z: number) => x + SIZE[0] * (y + SIZE[1] * z)
const all = (count: number) => Uint8Array.from({ length: count }, (_, n) => n)

/** The grey level or colour of each pixel of a slice, row by row. */
function levels(pixels: Uint32Array, width: number): number[][] {
  const rows: number[][] = []
  for (let n = 0; n < pixels.length; n += width) rows.push([...pixels.slice(n, n + width)].map((pixel) => pixel & 255))
  return rows
}

test('slices are seen as radiologists see them', () => {
  const voxels = all(24)
  const painted = PLANES.map((plane) => {
    const way = wayThrough(plane, 1, SIZE)
    const pixels = new Uint32Array(way.width * way.height)
    paintImage(pixels, way, voxels, [0, 255])
    return levels(pixels, way.width)
  })
  // Right in the patient is on the left, anterior or superior at the top; from the side, anterior is on the right.
  expect(painted[0]).toEqual([3, 2, 1, 0].map((y) => [2, 1, 0].map((x) => at(x, y, 1))))
  expect(painted[1]).toEqual([1, 0].map((z) => [2, 1, 0].map((x) => at(x, 1, z))))
  expect(painted[2]).toEqual([1, 0].map((z) => [0, 1, 2, 3].map((y) => at(1, y, z))))
})

test('the window decides the grey level, and what is no number is black', () => {
  const way = wayThrough('axial', 0, [5, 1, 1])
  const pixels = new Uint32Array(5)
  paintImage(pixels, way, Float32Array.of(1000, 50, 0, -1000, NaN), [-100, 200])
  expect(levels(pixels, 5)).toEqual([[0, 0, 85, 127, 255]])
  expect([...pixels].every((pixel) => pixel >>> 24 === 255)).toBe(true)
})

test('masks have the colours of their values, and others nothing', () => {
  const way = wayThrough('axial', 0, [3, 1, 1])
  const pixels = new Uint32Array(3)
  paintLabels(pixels, way, Uint8Array.of(0, 7, 9), pixelsOf(new Map([[7, [10, 20, 30]]])))
  expect([...pixels]).toEqual([0, 0xff1e140a, 0])
})

test('the voxels of a file begin where its header says', () => {
  const file = new ArrayBuffer(352 + 6)
  const header = new DataView(file)
  header.setInt16(70, 4, true)
  header.setFloat32(108, 352, true)
  header.setInt16(354, -7, true)
  expect(voxelsOf(file)).toEqual(Int16Array.of(0, -7, 0))
  header.setInt16(70, 64, true)
  expect(() => voxelsOf(file)).toThrow('unknown type')
})

test('the 3D view gets every so many voxels', () => {
  const size: Voxel = [400, 3, 1]
  const reduction = reductionOf(size)
  expect(reduction).toEqual({ steps: [4, 1, 1], size: [100, 3, 1] })
  const voxels = Int16Array.from({ length: 1200 }, (_, n) => n % 400)
  const copy = reduced(voxels, size, reduction, (value) => value / 2)
  expect([...copy.slice(100, 103)]).toEqual([0, 2, 4])
  expect(copy.at(-1)).toBe(198)
})
