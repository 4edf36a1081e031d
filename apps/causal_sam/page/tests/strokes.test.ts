import { expect, test } from 'vitest'
import { alongLine, strokeVoxels } from '../src/strokes'

test('a path has no gaps', () => {
  const voxels = [...alongLine([[0, 0, 2], [3, 1, 2]])]
  expect(voxels).toEqual([[0, 0, 2], [1, 0, 2], [2, 1, 2], [3, 1, 2]])
})

test('a stroke stays on its slice, within its radius in mm and within the image', () => {
  const voxels = strokeVoxels([[0, 5, 3]], 'axial', [1, 2, 4], [10, 10, 10], 2)
  expect(voxels.every(([, , z]) => z === 3)).toBe(true)
  const found = voxels.map(([x, y]) => `${x},${y}`).sort()
  expect(found).toEqual(['0,4', '0,5', '0,6', '1,5', '2,5'])
})

test('the path itself counts even where voxels are larger than the pen', () => {
  expect(strokeVoxels([[1, 1, 1]], 'coronal', [5, 5, 5], [3, 3, 3], 1)).toEqual([[1, 1, 1]])
})
