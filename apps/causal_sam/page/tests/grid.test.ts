import { expect, test } from 'vitest'
import { Grid } from '../src/grid'
import type { OpenedCase, Voxel } from '../src/types'

type Image = Pick<OpenedCase, 'shape' | 'spacing' | 'axes' | 'axis'>

// Axes of the file run to superior, left and anterior.
const TURNED: Image = { shape: [5, 3, 4], spacing: [3, 1, 2], axes: [[2, 1], [0, -1], [1, 1]], axis: 0 }

test('the image of the viewer has the axes of the patient', () => {
  const grid = new Grid(TURNED)
  expect(grid.size).toEqual([3, 4, 5])
  expect(grid.spacing).toEqual([1, 2, 3])
})

test('offsets lead from every voxel of the file to its voxel of the viewer, and toFile leads back', () => {
  const grid = new Grid(TURNED)
  const seen = new Set<number>()
  for (let i = 0; i < 5; i++)
    for (let j = 0; j < 3; j++)
      for (let k = 0; k < 4; k++) {
        const offset = grid.origin + i * grid.steps[0] + j * grid.steps[1] + k * grid.steps[2]
        const viewer: Voxel = [offset % 3, Math.floor(offset / 3) % 4, Math.floor(offset / 12)]
        expect(grid.toFile(viewer)).toEqual([i, j, k])
        seen.add(offset)
      }
  expect(seen.size).toBe(60)
})

test('only planes that are not segmented in any case are asked for', () => {
  const grid = new Grid(TURNED)
  expect(grid.planeToAsk('axial')).toBeNull()
  expect(grid.planeToAsk('sagittal')).toBe('sagittal')
})

test('voxels of the file and of the viewer lead to each other', () => {
  const grid = new Grid(TURNED)
  for (const voxel of [[0, 0, 0], [4, 2, 3], [1, 2, 0]] as Voxel[]) {
    expect(grid.toFile(grid.fromFile(voxel))).toEqual(voxel)
  }
})

test('slices are counted from 1, axial ones from the head, as in notes', () => {
  const grid = new Grid(TURNED)
  expect(grid.numberOf('axial', grid.size[2] - 1)).toBe(1)
  expect(grid.numberOf('coronal', 0)).toBe(1)
  expect(grid.numberOf('sagittal', grid.size[0] - 1)).toBe(1)
  for (const plane of ['axial', 'coronal', 'sagittal'] as const)
    for (const index of [0, 1, 2]) expect(grid.indexOf(plane, grid.numberOf(plane, index))).toBe(index)
})
