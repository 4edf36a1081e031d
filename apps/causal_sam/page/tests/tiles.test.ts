import { expect, test } from 'vitest'
import { Grid } from '../src/grid'
import { SEEN } from '../src/slices'
import { Tile, arrange, type Frame } from '../src/tiles'
import type { Voxel } from '../src/types'

const STRIP = 20
const ABDOMEN: Voxel = [384, 288, 192]
const WHOLE_BODY: Voxel = [400, 300, 1200]

test('each place is found again where it is drawn, in all layouts, zoomed and moved', () => {
  const grid = new Grid({ shape: [30, 40, 20], spacing: [1, 0.5, 3], axes: [[0, 1], [1, 1], [2, 1]], axis: 2 })
  for (const layout of ['planes', 'all', 'axial', 'coronal', 'sagittal'] as const)
    for (const focus of [{ mm: [0, 0, 0] as Voxel, zoom: 1 }, { mm: [3, -2, 5] as Voxel, zoom: 1.7 }])
      for (const [plane, frame] of arrange(layout, 700, 500, [30, 20, 60], STRIP).planes) {
        const tile = new Tile(plane, frame, grid, focus)
        const voxel: Voxel = [14, 17, 9]
        const position = tile.positionOf(voxel.map((n) => n + 0.5) as Voxel)
        expect(tile.placeAt(position, voxel)).toEqual(voxel)
        expect(tile.placeAt([frame.left - 1, frame.top], voxel)).toBeNull()
      }
})

test('views share the canvas, and neither lie on each other nor on the strips of the sliders', () => {
  for (const mm of [ABDOMEN, WHOLE_BODY])
    for (const layout of ['planes', 'all', 'axial', '3D'] as const) {
      const { planes, solid } = arrange(layout, 700, 500, mm, STRIP)
      const withStrips = planes.map(([, frame]) => ({ ...frame, width: frame.width + STRIP }))
      const frames: Frame[] = [...withStrips, ...(solid ? [solid] : [])]
      frames.forEach((one, n) => {
        expect(one.left >= 0 && one.top >= 0 && one.left + one.width <= 700 && one.top + one.height <= 500).toBe(true)
        for (const other of frames.slice(n + 1)) {
          const isApart =
            one.left + one.width <= other.left ||
            other.left + other.width <= one.left ||
            one.top + one.height <= other.top ||
            other.top + other.height <= one.top
          expect(isApart).toBe(true)
        }
      })
      expect(solid !== null).toBe(layout === 'all' || layout === '3D')
    }
})

/** Shares of the canvas that the slices fill, the axial one first. */
function filled(width: number, height: number, mm: Voxel): number[] {
  return arrange('planes', width, height, mm, STRIP).planes.map(([plane, frame]) => {
    const { u, v } = SEEN[plane]
    return (Math.min(frame.width / mm[u], frame.height / mm[v]) ** 2 * mm[u] * mm[v]) / (width * height)
  })
}

test('the planes use the room well, and the axial one is the largest of a body that is not long', () => {
  const sum = (shares: number[]) => shares.reduce((all, share) => all + share)
  expect(sum(filled(770, 640, WHOLE_BODY))).toBeGreaterThan(0.5)
  for (const [width, height] of [[770, 640], [1410, 920], [1500, 700]] as const) {
    const shares = filled(width, height, ABDOMEN)
    expect(sum(shares)).toBeGreaterThan(0.65)
    expect(shares[0]).toBe(Math.max(...shares))
  }
})

test('a flat image has its axial view above the others, and a long one beside them', () => {
  const placesOf = (mm: Voxel) => arrange('planes', 770, 640, mm, STRIP).planes.map(([plane, { left, top }]) => [plane, left > 0, top > 0])
  expect(placesOf(ABDOMEN)).toEqual([
    ['axial', false, false],
    ['coronal', false, true],
    ['sagittal', true, true],
  ])
  expect(placesOf(WHOLE_BODY)).toEqual([
    ['axial', false, false],
    ['coronal', true, false],
    ['sagittal', true, false],
  ])
})
