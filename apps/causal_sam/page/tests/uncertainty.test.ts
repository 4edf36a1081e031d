import { zlibSync } from 'fflate'
import { expect, test } from 'vitest'
import { Grid } from '../src/grid'
import { valuesOf } from '../src/masks'

test('values lie at their voxels, also where the viewer flips and swaps axes', () => {
  // File axes (i, j, k) run along the viewer's y, x (flipped) and z.
  const grid = new Grid({ shape: [2, 3, 2], spacing: [1, 1, 1], axes: [[1, 1], [0, -1], [2, 1]], axis: 2 })
  const values = btoa(String.fromCharCode(...zlibSync(new Uint8Array([10, 20, 30, 40]))))
  // Voxels (1, 0, 0), (1, 0, 1), (1, 1, 0) and (1, 1, 1) of the file.
  const all = valuesOf({ corner: [1, 0, 0], extent: [1, 2, 2], values }, grid)
  const at = (x: number, y: number, z: number) => all[x + 3 * (y + 2 * z)]
  expect([at(2, 1, 0), at(2, 1, 1), at(1, 1, 0), at(1, 1, 1)]).toEqual([10, 20, 30, 40])
  expect(all.reduce((sum, value) => sum + value)).toBe(100)
})
